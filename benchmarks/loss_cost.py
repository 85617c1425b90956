"""Time and peak memory of every loss term beside its public peers.

    python benchmarks/loss_cost.py -o benchmarks/results/loss_cost_cpu.json
    python benchmarks/loss_cost.py --device cuda -o benchmarks/results/loss_cost_cuda.json

Losses are called on the same logits (2 classes, a network of tubes, a smooth noisy prediction) in one process, forward
and backward, in turn, so that a machine whose speed drifts slows all of them alike. Time is the median over rounds of
the ratio to nnU-Net's Dice and cross-entropy (not compiled, on a GPU neither) in the same round. Memory is the peak on
top of what lay in memory before, by torch's profiler on the CPU and by the allocator on a GPU, in bytes a voxel.

`surface`, `vessel` and `membrane` are the whole losses of these recipes' last phases, targets handed in as in training.

Peers: MONAI's SoftclDiceLoss; topolosses' CLDiceLoss (it works in 2-D only: the case of 512^2) and, at 64^3,
BettiMatchingLoss on the whole patch (ours looks at a small part of it); with `--peers FOLDER` those of clones of
Skeleton-Recall and cbDice that lie there. One that does not run here is left out.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor

from nnunet_topo.losses import NNUNET_TERM, TERMS, make_term
from nnunet_topo.losses.label_targets import LABEL_TARGETS, label_target
from nnunet_topo.recipe import load_recipe

SEED = 0
REFERENCE = "nnU-Net DC_and_CE_loss"
TERMS_TO_TIME: dict[str, tuple[str, dict[str, Any]]] = {
    f"{name}{f' {iterations}' if iterations else ' auto'}": (name, {"iterations": iterations})
    for name in ("cldice", "cbdice")
    for iterations in (3, 10, None)
}
TERMS_TO_TIME |= {name: (name, {}) for name in TERMS if name not in ("cldice", "cbdice")}
RECIPES = ("surface", "vessel", "membrane")
PEER_OF = {
    "cldice 3": "MONAI SoftclDiceLoss 3",
    "cldice 10": "MONAI SoftclDiceLoss 10",
    "cbdice 10": "cbDice SoftcbDiceLoss 10",
    "skeleton_recall": "Skeleton-Recall SoftSkeletonRecallLoss",
    "betti_matching": "topolosses BettiMatchingLoss",
}
MOST_VOXELS_FOR_TOPOLOSSES = 64**3
"""Its Betti matching takes seconds for so many, and longer than in proportion for more."""
FLAT = 512
"""Edge of the case in 2-D."""


def tubes(n: int, axes: int = 3) -> np.ndarray:
    """Wavy tubes of radius 2.5 voxels in random directions, about 2 % of the volume."""
    rng = np.random.default_rng(SEED)
    background = np.ones((n,) * axes, bool)
    for _ in range(max(3, n // 9)):
        start, direction = rng.random(axes) * n, rng.normal(size=axes)
        steps = np.linspace(-n, n, 4 * n)[:, None]
        points = start + steps * direction / np.linalg.norm(direction) + 6 * np.sin(steps / 17)
        points = np.round(points).astype(int)
        background[tuple(points[((points >= 0) & (points < n)).all(1)].T)] = False
    return distance_transform_edt(background) <= 2.5


def make_case(n: int, batch_size: int, device: str, axes: int = 3) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Logits, labels and label-derived targets."""
    mask = tubes(n, axes)
    rng = np.random.default_rng(SEED)
    noise = gaussian_filter(rng.normal(size=mask.shape), 1)
    margin = 8 * (gaussian_filter(mask.astype(np.float32), 1) - 0.4) + 4 * noise
    logits = torch.from_numpy(np.stack([-margin / 2, margin / 2]).astype(np.float32))[None]
    labels = torch.from_numpy(mask.astype(np.int16))[None, None]
    targets = {name: label_target(name, labels == 1, None, None) for name in LABEL_TARGETS}
    repeat = (batch_size, 1, *(1,) * axes)
    targets = {name: target.repeat(repeat).to(device) for name, target in targets.items()}
    return logits.repeat(repeat).to(device).requires_grad_(), labels.repeat(repeat).to(device), targets


def load(path: Path, name: str) -> ModuleType:
    """A module from a file, whatever package it belongs to."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path}: not a Python file")
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def topolosses() -> ModuleType | None:
    """The package's losses, if it can be imported here."""
    sys.modules.setdefault("torchvision", ModuleType("torchvision"))  # imported by it, unused, and easily a wrong build
    try:
        return importlib.import_module("topolosses.losses")
    except ImportError as error:
        print(f"topolosses left out: {error}")
        return None


def topolosses_peers(labels: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Those of the package topolosses that take such labels."""
    package = topolosses()
    if package is None:
        return {}
    onehot = torch.cat([1 - labels, labels], 1).float()
    if labels.ndim == 4:
        cldice = package.CLDiceLoss(iter_=10, softmax=True, include_background=False, alpha=1.0)
        return {"topolosses CLDiceLoss 10": lambda logits: cldice(logits, onehot)}
    if labels[0].numel() > MOST_VOXELS_FOR_TOPOLOSSES:
        return {}
    matching = package.BettiMatchingLoss(softmax=True, include_background=False, alpha=1.0)
    return {"topolosses BettiMatchingLoss": lambda logits: matching(logits, onehot)}


def recipe_loss(name: str, labels: Tensor, targets: dict[str, Tensor], stock: Callable) -> Callable[[Tensor], Tensor]:
    """The weighted sum of a recipe's last phase."""
    recipe = load_recipe(name)
    weights = dict(recipe.phases[-1].weights)
    nnunet = weights.pop(NNUNET_TERM, 0.0)
    terms = [(weight, make_term(term, **recipe.losses.get(term, {}))) for term, weight in weights.items()]

    def loss(logits: Tensor) -> Tensor:
        own = sum(weight * term(logits, labels, targets) for weight, term in terms)
        return nnunet * stock(logits, labels) + own

    return loss


def losses(labels: Tensor, targets: dict[str, Tensor], peers: Path | None) -> dict[str, Callable[[Tensor], Tensor]]:
    """Name -> loss of the logits."""
    from monai.losses import SoftclDiceLoss
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
    from nnunetv2.utilities.helpers import softmax_helper_dim1

    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    stock = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)
    chosen: dict[str, Callable[[Tensor], Tensor]] = {REFERENCE: lambda logits: stock(logits, labels)}
    for name, (term, parameters) in TERMS_TO_TIME.items():
        module = make_term(term, **parameters)
        chosen[name] = lambda logits, module=module: module(logits, labels, targets)
    chosen |= {f"recipe {name}": recipe_loss(name, labels, targets, stock) for name in RECIPES}
    for iterations in (3, 10):
        monai = SoftclDiceLoss(iter_=iterations, include_background=False, softmax=True)
        chosen[f"MONAI SoftclDiceLoss {iterations}"] = lambda logits, monai=monai: monai(
            logits, torch.cat([1 - labels, labels], 1).float()
        )
    chosen |= topolosses_peers(labels)
    recall_file = peers / "Skeleton-Recall/nnunetv2/training/loss/dice.py" if peers else None
    if recall_file and recall_file.is_file():
        recall = load(recall_file, "skeleton_recall_dice").SoftSkeletonRecallLoss(
            apply_nonlin=softmax_helper_dim1, do_bg=False
        )
        chosen["Skeleton-Recall SoftSkeletonRecallLoss"] = lambda logits: recall(logits, targets["skeleton"])
    cbdice_folder = peers / "cbDice/loss" if peers else None
    if cbdice_folder and cbdice_folder.is_dir() and labels.ndim == 5:
        for helper in ("skeletonize", "soft_skeleton"):  # it expects to lie inside of nnU-Net
            load(cbdice_folder / f"{helper}.py", f"nnunetv2.training.loss.{helper}")
        cbdice = load(cbdice_folder / "cbdice_loss.py", "cbdice_loss").SoftcbDiceLoss(iter_=10)
        chosen["cbDice SoftcbDiceLoss 10"] = lambda logits: cbdice(logits, labels)
    return chosen


def step(loss: Callable[[Tensor], Tensor], logits: Tensor) -> None:
    """One forward and backward pass."""
    logits.grad = None
    loss(logits).backward()


def seconds_of(loss: Callable[[Tensor], Tensor], logits: Tensor) -> float:
    """Wall seconds of one step."""
    wait = torch.cuda.synchronize if logits.is_cuda else lambda: None
    wait()
    start = perf_counter()
    step(loss, logits)
    wait()
    return perf_counter() - start


def peak_bytes(loss: Callable[[Tensor], Tensor], logits: Tensor) -> int:
    """Most memory that one step holds on top of what was held before it."""
    logits.grad = None
    if logits.is_cuda:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(loss, logits)
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step(loss, logits)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def compare(
    n: int, batch_size: int, device: str, rounds: int, peers: Path | None, axes: int = 3
) -> dict[str, dict[str, float]]:
    """Figures of every loss on one case."""
    logits, labels, targets = make_case(n, batch_size, device, axes)
    chosen = losses(labels, targets, peers)
    memory = {name: peak_bytes(loss, logits) for name, loss in chosen.items()}  # warms up, too
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, loss in chosen.items():
            seconds[name].append(seconds_of(loss, logits))
    rows = {}
    for name in chosen:
        ratios = [own / stock for own, stock in zip(seconds[name], seconds[REFERENCE], strict=True)]
        rows[name] = {
            "median_s": round(statistics.median(seconds[name]), 5),
            "time_over_reference": round(statistics.median(ratios), 3),
            "bytes_per_voxel": round(memory[name] / labels.numel(), 1),
        }
        peer = PEER_OF.get(name)
        if peer in chosen:
            faster = [theirs / own for own, theirs in zip(seconds[name], seconds[peer], strict=True)]
            rows[name]["times_faster_than_peer"] = round(statistics.median(faster), 2)
            if name != "betti_matching":  # whose memory is that of an engine outside of torch
                rows[name]["memory_over_peer"] = round(memory[name] / memory[peer], 4)
    return rows


def main() -> int:
    """Run the comparison, print the tables and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--patch", type=int, nargs="+", default=[64, 96, 128], help="edges of the patches in voxels")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=None, help="default: 5 on a CPU, 30 on a GPU")
    parser.add_argument("--peers", type=Path, default=None, help="folder with clones of Skeleton-Recall and cbDice")
    parser.add_argument("-o", "--output", type=Path, default=None, help="JSON file to write")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    cuda = arguments.device == "cuda"
    rounds = arguments.rounds or (30 if cuda else 5)
    cases = {}
    for n, axes in [*((n, 3) for n in arguments.patch), (FLAT, 2)]:
        for batch_size in arguments.batch_size:
            case = f"{n}^{axes}, batch {batch_size}"
            cases[case] = compare(n, batch_size, arguments.device, rounds, arguments.peers, axes)
            print(f"{case:42}{'s':>10}{'/ DC_CE':>10}{'B/voxel':>10}{'x faster':>10}{'mem/peer':>10}")
            for name, row in cases[case].items():
                print(f"  {name:40}" + "".join(f"{figure:>10}" for figure in row.values()))
    result = {
        "command": "python benchmarks/loss_cost.py " + " ".join(sys.argv[1:]),
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {platform.machine()}, 1 thread",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "rounds": rounds,
        "seed": SEED,
        "cases": cases,
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
