"""What the monitors cost of an epoch of nnU-Net's default length, 250 training and 50 validation steps.

    python benchmarks/monitor_cost.py                     # CPU: nnU-Net's own network at 32^3
    python benchmarks/monitor_cost.py --device cuda       # 128^3, fp16 autocast and torch.compile, as users train

Steps and monitors of one trainer take turns, so a machine whose speed drifts slows both alike; on the CPU it is the
process's own time that counts, so that others on the machine do not. An epoch is 250 times
the median training step plus 50 times the median validation step; the ratio is the median measurement of all monitors
over that, with the share of each part. Batches are made beforehand: waiting for data would only make the ratio smaller.
The gradient's norm is left out, since stock nnU-Net takes it too. The conflict meter works on request only, so what it
costs each time it does stands by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import step_time
import torch

CLOCKS = {"cpu": process_time, "cuda": perf_counter}
TRAINING_STEPS, VALIDATION_STEPS = 250, 50
LIMIT = 0.03


def patches(trainer: Any, patch: int, names: tuple[str, ...]) -> list[Any]:
    """As many as the recipe wants: noise, each with a bent tube of its own in it, and the label-derived targets."""
    from nnunet_topo.training.patches import Patch
    from nnunet_topo.training.targets import label_targets_for

    transform = label_targets_for(trainer, names)
    made = []
    for index in range(trainer.recipe.monitor.patches):
        batch = step_time.make_batch(trainer, patch, 1)
        labels = batch["target"][0].roll(3 * index, dims=3)
        targets = transform(segmentation=[labels[0]])["segmentation"][1:] if names else []
        named = {name: target[None] for name, target in zip(transform.names, targets, strict=True)}
        made.append(Patch(f"case{index}", batch["data"], labels, named))
    return made


def build_monitors(trainer: Any, patch: int) -> Any:
    """The trainer's monitors on patches that need no data set."""
    from nnunet_topo.training.loss import build_terms
    from nnunet_topo.training.monitors import Monitors, monitored_terms, reference_weights

    recipe = trainer.recipe
    terms = build_terms(
        recipe,
        monitored_terms(recipe),
        trainer.label_manager,
        spacing_mm=trainer.patch_spacing(),
        batch_dice=False,
    )
    names = tuple(dict.fromkeys(name for term in terms.values() for name in term.target_names))
    return Monitors(patches(trainer, patch, names), terms, reference_weights(recipe))


def seconds(work: Any, device: str) -> float:
    """How long a call takes, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = CLOCKS[device]()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return CLOCKS[device]() - start


def measure(name: str, patch: int, batch_size: int, device: str, rounds: int) -> dict[str, Any]:
    """Times of one recipe in all of its phases' terms."""
    from nnunet_topo.recipe import load_recipe
    from nnunet_topo.training import monitors as module
    from nnunet_topo.training.conflict import gradient_conflict

    recipe = load_recipe(name).to_mapping()
    trainer = step_time.make_trainer("topo", recipe, patch, batch_size, device)
    batch = step_time.make_batch(trainer, patch, batch_size)
    monitors = build_monitors(trainer, patch)
    terms = {term: monitors.terms[term] for term in module.optimised_terms(trainer.recipe)}
    count_betti, in_betti = module.betti_numbers, 0.0

    def timed_betti(mask: Any) -> Any:
        nonlocal in_betti
        start = CLOCKS[device]()
        numbers = count_betti(mask)
        in_betti += CLOCKS[device]() - start
        return numbers

    def validate() -> None:
        # nnU-Net overwrites ignored voxels in place: on a GPU in its copy, on the CPU in the batch itself.
        target = batch["target"] if device == "cuda" else [target.clone() for target in batch["target"]]
        trainer.network.eval()
        with torch.no_grad():
            trainer.validation_step({**batch, "target": target})
        trainer.network.train()

    def monitor() -> None:
        monitors.measure(trainer.network, trainer.device, trainer.autocast())

    def conflict() -> None:
        centred = monitors.patches[::2][: module.CONFLICT_PATCHES]
        gradient_conflict(trainer.network, terms, centred, trainer.device)

    works = {"training": lambda: trainer.train_step(batch), "validation": validate, "monitors": monitor}
    works["conflict"] = conflict
    for work in works.values():
        work()
    times: dict[str, list[float]] = {part: [] for part in works}
    module.betti_numbers, topology = timed_betti, []
    for _ in range(rounds):
        for part, work in works.items():
            in_betti = 0.0
            times[part].append(seconds(work, device))
            if part == "monitors":
                topology.append(in_betti)
    module.betti_numbers = count_betti
    median = {part: statistics.median(values) for part, values in times.items()}
    epoch = TRAINING_STEPS * median["training"] + VALIDATION_STEPS * median["validation"]
    return {
        "ratio": round(median["monitors"] / epoch, 5),
        "ratio_topology": round(statistics.median(topology) / epoch, 5),
        "conflict_each_time": round(median["conflict"] / epoch, 5) if len(terms) > 1 else None,
        "patches": len(monitors.patches),
        "terms": list(monitors.terms),
        "epoch_s": round(epoch, 2),
        "monitors_s": round(median["monitors"], 4),
        "topology_ms_each_patch": round(1e3 * statistics.median(topology) / len(monitors.patches), 2),
        "training_step_s": round(median["training"], 5),
        "validation_step_s": round(median["validation"], 5),
    }


def main() -> int:
    """Measure, print the table, write it as JSON; status 1 when a recipe is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--patch", type=int, default=None, help="edge of the patch in voxels (32 on CPU, 128 on GPU)")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=None, help="measurements of each part (3 on CPU, 20 on GPU)")
    parser.add_argument("--recipes", nargs="+", default=["nnunet", "progressive", "v9_progressive"])
    parser.add_argument("-o", "--output", type=Path, default=None, help="JSON file to write")
    arguments = parser.parse_args()
    device = arguments.device
    patch = arguments.patch or {"cpu": 32, "cuda": 128}[device]
    rounds = arguments.rounds or {"cpu": 3, "cuda": 20}[device]
    step_time.STAGES["cpu"] = (4, 32)  # what nnU-Net's planner gives at 32^3, not the step benchmark's small one
    if device == "cpu":
        torch.set_num_threads(1)
    folder = tempfile.TemporaryDirectory()
    os.environ["nnUNet_results"] = os.environ["nnUNet_preprocessed"] = folder.name
    (Path(folder.name) / "Dataset999_Benchmark" / "benchmark").mkdir(parents=True)
    # nnU-Net tells its dataset format by the file endings that it finds; the batches themselves are made here.
    (Path(folder.name) / "Dataset999_Benchmark" / "benchmark" / "case.b2nd").touch()
    np.random.seed(step_time.SEED)
    rows = {name: measure(name, patch, arguments.batch_size, device, rounds) for name in arguments.recipes}
    result = {
        "command": "python benchmarks/monitor_cost.py " + " ".join(sys.argv[1:]),
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {platform.machine()}, 1 thread",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "patch": [patch] * 3,
        "batch_size": arguments.batch_size,
        "rounds": rounds,
        "limit": LIMIT,
        "recipes": rows,
    }
    print(f"{'recipe':18}{'of an epoch':>13}{'topology':>11}{'conflict, each time':>21}{'epoch':>10}{'monitors':>11}")
    for name, row in rows.items():
        conflict = "-" if row["conflict_each_time"] is None else f"{row['conflict_each_time']:.2%}"
        print(
            f"{name:18}{row['ratio']:>13.2%}{row['ratio_topology']:>11.2%}{conflict:>21}"
            f"{row['epoch_s']:>8.0f} s{row['monitors_s']:>9.2f} s"
        )
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    return int(any(row["ratio"] > LIMIT for row in rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
