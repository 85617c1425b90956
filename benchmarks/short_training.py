"""Short cross-validated trainings of real datasets under different losses: overlap and topology of what they predict.

    python benchmarks/short_training.py --data RAW_DATASETS --work FOLDER -o benchmarks/results/short_training.json

RAW_DATASETS holds nnU-Net raw datasets: Dataset305_FIBSEMWalls3D (cell walls, sheets) and Dataset301_VesselNN3D
(two-photon vessels, trees; Teikari et al. 2016), of whose large stacks only the middle is used. Every loss gets the
same plans, steps, folds and seeds, through nnU-Net's own training (`train_on_one_core.py`); the network is small and
the runs are short, so that a CPU can make them. They tell how the losses compare so early and so small, not what a full
training gives. One term added to stock's loss comes in halfway, as in the recipes `surface` and `vessel`. Finished
trainings in FOLDER are kept, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import yaml

STOCK = "stock DC+CE"
TRAINER, CONFIGURATION, PLANS = "nnUNetTrainerTopo", "3d_fullres", "nnUNetPlans"
SWITCH_ON = 0.5
"""Share of the run after which a term comes in, as in the recipes."""
Phases = list[dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """A dataset, its small configuration, and what is compared and measured on it.

    Attributes:
        name: folder of the raw dataset.
        recipe: the package's own recipe for such structures.
        network: patch size, batch size and features of `nnunet-topo plan --set`.
        metrics: names in `nnunet_topo.metrics`.
        middle: largest size in the plane (y, x) in voxels; more is cut off at both sides. None: everything is used.
    """

    name: str
    recipe: str
    network: tuple[str, ...]
    metrics: tuple[str, ...]
    middle: tuple[int, int] | None = None

    @property
    def number(self) -> int:
        """nnU-Net's number of the dataset."""
        return int(self.name[7:10])


_COMMON = ("dice", "cldice", "betti_0_error", "betti_1_error", "betti_2_error")
TASKS = (
    Task(
        "Dataset305_FIBSEMWalls3D",
        "surface",
        ("network.patch_size=[32,32,32]", "network.batch_size=2", "network.features=8"),
        (*_COMMON, "leaderboard", "topo_score", "surface_dice", "voi_score", "voi_split", "voi_merge"),
    ),
    Task(
        "Dataset301_VesselNN3D",
        "vessel",
        ("network.patch_size=[16,64,64]", "network.batch_size=2", "network.features=8"),
        (*_COMMON, "voi_split", "voi_merge"),
        middle=(192, 256),
    ),
)


def phases_of(loss: str, epochs: int) -> Phases:
    """The phases of one of the losses compared."""
    from nnunet_topo.recipe import load_recipe

    ramp = max(1, epochs // 20)  # 50 of 1000 in the recipes
    start: dict[str, Any] = {"from": 0, "weights": {"nnunet": 1.0}}
    if loss == STOCK:
        return [start]
    if loss in ("cldice", "skeleton_recall"):
        return [start, {"from": SWITCH_ON, "weights": {"nnunet": 1.0, loss: 0.5}, "ramp_epochs": ramp}]
    recipe = load_recipe(loss)
    return [
        {"from": phase.start, "weights": dict(phase.weights), "ramp_epochs": ramp if phase.ramp_epochs else 0}
        for phase in recipe.phases
    ]


@dataclass(frozen=True)
class Bench:
    """Where and how long the trainings are.

    Attributes:
        work: scratch folder with nnU-Net's three.
        epochs: of each training.
        iterations: steps an epoch.
    """

    work: Path
    epochs: int
    iterations: int

    def environment(self, workers: int) -> dict[str, str]:
        """Variables of nnU-Net's commands.

        Args:
            workers: processes that load data; 0: none besides the training (nnU-Net's planning needs one).
        """
        kept = {key: value for key, value in os.environ.items() if not key.upper().startswith("NNUNET")}
        roots = {f"nnUNet_{name}": str(self.work / f"nnUNet_{name}") for name in ("raw", "preprocessed", "results")}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        nnunet = {"nnUNet_compile": "f", "nnUNet_n_proc_DA": str(workers), "nnUNet_def_n_proc": "1"}
        return {**kept, **roots, **threads, **nnunet, "OMP_WAIT_POLICY": "PASSIVE", "MPLBACKEND": "Agg"}

    def run(self, log: str, *command: object, workers: int = 1) -> None:
        """Run a command of this Python's environment; its output goes to a file."""
        file = self.work / "logs" / f"{log}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        program = [str(Path(sys.executable).with_name(str(command[0])))]
        if command[0] == "nnUNetv2_train":
            program = [sys.executable, str(Path(__file__).with_name("train_on_one_core.py"))]
        with file.open("w", encoding="utf-8") as stream:
            words = [*program, *map(str, command[1:])]
            done = subprocess.run(
                words, env=self.environment(workers), stdout=stream, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} ended with status {done.returncode}, see {file}")

    def prepare(self, task: Task, source: Path, losses: Sequence[str], seeds: Sequence[int]) -> None:
        """Plan, preprocess, fix the splits, and write the plans of every loss and seed."""
        raw = self.work / "nnUNet_raw" / task.name
        preprocessed = self.work / "nnUNet_preprocessed" / task.name
        if not raw.exists():
            raw.parent.mkdir(parents=True, exist_ok=True)
            if task.middle:
                cut(source, raw, task.middle)
            else:
                raw.symlink_to(source.resolve())
        splits = preprocessed / "splits_final.json"
        if not splits.exists():
            options = ("-d", task.number, "-c", CONFIGURATION, "-np", 1, "-npfp", 1)
            self.run(f"{task.number}_preprocess", "nnUNetv2_plan_and_preprocess", *options)
            splits.write_text(json.dumps(folds_of(source), indent=1))
        for loss in losses:
            for seed in seeds:
                recipe = self.work / "recipes" / f"{name_of(loss, seed)}.yaml"
                recipe.parent.mkdir(exist_ok=True)
                content = {
                    "name": name_of(loss, seed),
                    "seed": seed,
                    "epochs": self.epochs,
                    "iterations_per_epoch": self.iterations,
                    "validation_iterations": 2,
                    "monitor": {"patches": 2},
                    "sampling": {"mirror_axes": []},
                    "phases": phases_of(loss, self.epochs),
                }
                recipe.write_text(yaml.safe_dump(content, sort_keys=False))
                how = ("-d", task.number, "-r", recipe, "-c", CONFIGURATION, "--set", *task.network)
                self.run(f"{task.number}_plan_{name_of(loss, seed)}", "nnunet-topo", "plan", *how)

    def validation(self, task: Task, loss: str, seed: int, fold: int) -> Path:
        """Folder with the predictions of a fold."""
        model = f"{TRAINER}__{PLANS}_{name_of(loss, seed)}__{CONFIGURATION}"
        return self.work / "nnUNet_results" / task.name / model / f"fold_{fold}" / "validation"

    def train(self, task: Task, loss: str, seed: int, fold: int) -> None:
        """One training with its validation, unless it is there."""
        if (self.validation(task, loss, seed, fold) / "summary.json").is_file():
            return
        begin = monotonic()
        options: tuple[object, ...] = (
            task.number,
            CONFIGURATION,
            fold,
            "-p",
            f"{PLANS}_{name_of(loss, seed)}",
            "-tr",
            TRAINER,
        )
        if self.validation(task, loss, seed, fold).parent.exists():
            options += ("--c",)
        log = f"{task.number}_{name_of(loss, seed)}_{fold}"
        self.run(log, "nnUNetv2_train", *options, "-device", "cpu", workers=0)
        print(f"{task.name}, {loss}, seed {seed}, fold {fold}: {monotonic() - begin:.0f} s", flush=True)

    def scores(self, task: Task, loss: str, seed: int, folds: int) -> dict[str, dict[str, float]]:
        """Case -> metric -> value over all folds of a seed."""
        from nnunet_topo.evaluation.evaluate import evaluate_folders

        cases: dict[str, dict[str, float]] = {}
        for fold in range(folds):
            predictions = self.validation(task, loss, seed, fold)
            truth = self.work / "nnUNet_preprocessed" / task.name / "gt_segmentations"
            names = json.loads((truth.parent / "splits_final.json").read_text())[fold]["val"]
            evaluation = evaluate_folders(
                truth, predictions, metrics=task.metrics, cases=names, processes=1, progress=False
            )
            if evaluation.problems:
                raise SystemExit(f"{predictions}: {evaluation.problems}")
            for row in evaluation.summary["metric_per_case"]:
                (values,) = row["metrics"].values()
                cases[Path(row["prediction_file"]).name.partition(".")[0]] = values
        return cases


def cut(source: Path, target: Path, middle: tuple[int, int]) -> None:
    """Copy the training cases of a dataset, the middle of every slice only."""
    import SimpleITK

    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True)
        for file in sorted((source / folder).iterdir()):
            image = SimpleITK.ReadImage(str(file))
            x, y, z = image.GetSize()
            size = (min(x, middle[1]), min(y, middle[0]), z)
            start = ((x - size[0]) // 2, (y - size[1]) // 2, 0)
            SimpleITK.WriteImage(SimpleITK.RegionOfInterest(image, size, start), str(target / folder / file.name))
    (target / "dataset.json").write_bytes((source / "dataset.json").read_bytes())


def name_of(loss: str, seed: int) -> str:
    """Name of a recipe."""
    return f"{'stock' if loss == STOCK else loss}_s{seed}"


def folds_of(source: Path) -> list[dict[str, list[str]]]:
    """The dataset's own splits, else three folds."""
    given = source / "splits_final.json"
    if given.is_file():
        return json.loads(given.read_text())
    ending = json.loads((source / "dataset.json").read_text())["file_ending"]
    names = sorted(file.name.removesuffix(ending) for file in (source / "labelsTr").glob(f"*{ending}"))
    return [{"train": [n for i, n in enumerate(names) if i % 3 != k], "val": names[k::3]} for k in range(3)]


def table_of(scores: dict[str, list[dict[str, dict[str, float]]]], keys: dict[str, str]) -> dict[str, Any]:
    """Loss -> metric -> mean, spread over the seeds, and the paired difference to stock."""
    from nnunet_topo.evaluation.compare import metric_difference

    def values(loss: str, key: str) -> np.ndarray:
        return np.array([[seed[case][key] for case in sorted(seed)] for seed in scores[loss]], float)

    table: dict[str, Any] = {}
    for loss in scores:
        rows = table.setdefault(loss, {})
        for metric, key in keys.items():
            own, stock = values(loss, key), values(STOCK, key)
            rows[metric] = {
                "mean": float(own.mean()),
                "mean_of_each_seed": own.mean(1).tolist(),
                "sd_over_cases": float(own.mean(0).std(ddof=1)),
            }
            if loss != STOCK:
                paired = metric_difference(stock.mean(0), own.mean(0), key=key)
                rows[metric] |= {
                    "difference": paired.difference,
                    "interval_95": paired.interval,
                    "wins": paired.wins,
                    "losses": paired.losses,
                    "difference_of_each_seed": (own - stock).mean(1).tolist(),
                }
    return table


def markdown(result: dict[str, Any]) -> str:
    """The tables for a reader."""
    lines = ["# Short trainings", "", f"`{result['command']}`: {result['what']}", ""]
    for name, part in result["datasets"].items():
        lines += [f"## {name}", "", f"{part['cases']} cases, {part['folds']} folds, seeds {result['seeds']}.", ""]
        metrics = list(next(iter(part["table"].values())))
        lines += ["| loss | " + " | ".join(metrics) + " |", "|---|" + "---|" * len(metrics)]
        for loss, rows in part["table"].items():
            cells = []
            for metric in metrics:
                row = rows[metric]
                seeds = " / ".join(f"{value:.4g}" for value in row["mean_of_each_seed"])
                cell = f"**{row['mean']:.4g}** ({seeds})"
                if "difference" in row:
                    low, high = row["interval_95"]
                    cell += f"<br>{row['difference']:+.3g} [{low:+.3g}, {high:+.3g}], {row['wins']}:{row['losses']}"
                cells.append(cell)
            lines.append(f"| {loss} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    """Train, score, and write JSON and the table beside it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the raw datasets")
    parser.add_argument("--work", type=Path, required=True, help="scratch folder, kept")
    parser.add_argument("--only", nargs="+", default=[task.name for task in TASKS], help="names of datasets")
    parser.add_argument("--losses", nargs="+", default=None, help="beside stock; default: all of the dataset")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--iterations", type=int, default=20, help="steps an epoch")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, of one core each")
    parser.add_argument("-o", "--output", type=Path, default=None, help="JSON file; a .md is written beside it")
    arguments = parser.parse_args()
    import torch

    from nnunet_topo.metrics.registry import METRICS

    bench = Bench(arguments.work.resolve(), arguments.epochs, arguments.iterations)
    datasets: dict[str, Any] = {}
    for task in (task for task in TASKS if task.name in arguments.only):
        losses = [STOCK, *(arguments.losses or ["cldice", "skeleton_recall", task.recipe])]
        bench.prepare(task, arguments.data / task.name, losses, arguments.seeds)
        folds = len(folds_of(arguments.data / task.name))
        # Seeds and folds outside, so that what is there after an interruption can be compared.
        runs = [(task, loss, s, fold) for s in arguments.seeds for fold in range(folds) for loss in losses]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda run: bench.train(*run), runs))
        scores = {loss: [bench.scores(task, loss, seed, folds) for seed in arguments.seeds] for loss in losses}
        keys = {metric: METRICS[metric].key for metric in task.metrics}
        datasets[task.name] = {
            "network": task.network,
            "folds": folds,
            "cases": len(scores[STOCK][0]),
            "phases": {loss: phases_of(loss, arguments.epochs) for loss in losses},
            "table": table_of(scores, keys),
            "scores": scores,
        }
    what = (
        f"{arguments.epochs} epochs of {arguments.iterations} steps, no mirroring. Mean over the cases (of each seed); "
        "below it the difference to stock with its 95 % bootstrap interval over cases, and cases won : lost."
    )
    result = {
        "command": "python benchmarks/short_training.py " + " ".join(sys.argv[1:]),
        "device": f"CPU, {platform.machine()}, {arguments.jobs} trainings side by side, 1 thread each",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "what": what,
        "seeds": arguments.seeds,
        "datasets": datasets,
    }
    print(markdown(result))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
        arguments.output.with_suffix(".md").write_text(markdown(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
