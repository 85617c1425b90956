"""Training through the stock command line at a tiny configuration, and what has to lie in the folders afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stock_datasets import read_json
from stock_harness import LAUNCHER, Bench

OURS = "nnUNetTrainerTopoProgressive"
STOCK = "nnUNetTrainer"
EPOCHS, ITERATIONS, VALIDATION_ITERATIONS = 4, 2, 1
# The second phase is a ramp over two epochs, so that a training killed after the first one resumes within it.
SETTINGS = (
    f"epochs={EPOCHS}",
    f"iterations_per_epoch={ITERATIONS}",
    f"validation_iterations={VALIDATION_ITERATIONS}",
    "checkpoint_every=1",
    "network.batch_size=2",
    "network.features=4",
)
PHASES = ("phases.1.from=1", "phases.1.ramp_epochs=2", "phases.2.from=3")
# What an uninterrupted run of recipe progressive with PHASES uses: at the start of a ramp still the old weights.
WEIGHTS: tuple[dict[str, float], ...] = (
    {"dice": 1.0},
    {"dice": 1.0},
    {"dice": 0.9, "focal": 0.1},
    {"dice": 0.75, "focal": 0.15, "variance": 0.05, "boundary": 0.05},
)


@dataclass(frozen=True)
class Model:
    """What nnU-Net calls a model: dataset, configuration, plans and trainer."""

    dataset: str
    configuration: str
    plans: str
    trainer: str

    @property
    def number(self) -> int:
        return int(self.dataset[7:10])

    def folder(self, results: Path) -> Path:
        return results / self.dataset / f"{self.trainer}__{self.plans}__{self.configuration}"

    def selection(self) -> tuple[object, ...]:
        """The options that nnUNetv2_predict and nnUNetv2_export_model_to_zip share."""
        return ("-d", self.number, "-c", self.configuration, "-p", self.plans, "-tr", self.trainer)


def train(
    bench: Bench,
    model: Model,
    fold: int | str,
    *flags: object,
    step: str = "",
    env: Mapping[str, str] | None = None,
    refused: tuple[str, ...] | None = None,
    says: str = "",
) -> str:
    """Train one fold to its end; the stock trainer is cut to the same epochs and steps as ours."""
    step = step or f"train fold {fold}, {model.trainer}"
    arguments = _training_arguments(model, fold, *flags)
    return bench.run(model.dataset, step, *arguments, env=env, refused=refused, says=says)


def train_killed(bench: Bench, model: Model, fold: int | str, *flags: object) -> int:
    """Start a training and kill -9 it in the middle; returns the epoch that its checkpoint would go on with."""
    folder = model.folder(bench.results) / f"fold_{fold}"

    def in_the_middle() -> bool:
        return (folder / "checkpoint_latest.pth").is_file() and len(epoch_lines(folder)) >= 2

    step = f"train fold {fold}, {model.trainer}, kill -9"
    bench.run_until(model.dataset, step, *_training_arguments(model, fold, *flags), reached=in_the_middle)
    with bench.check(model.dataset, "killed before the last epoch, checkpoint whole"):
        assert not (folder / "checkpoint_final.pth").exists(), "training was already finished"
        # The best one of an epoch is written before the latest, so the kill may leave it the newer of the two.
        files = [file for name in ("latest", "best") if (file := folder / f"checkpoint_{name}.pth").is_file()]
        epoch = max(int(read_checkpoint(file)["current_epoch"]) for file in files)
        assert 0 < epoch < EPOCHS, f"the newest checkpoint continues with epoch {epoch}"
    return epoch


def train_until(
    bench: Bench, model: Model, fold: int | str, step: str, reached: Callable[[], bool], env: Mapping[str, str]
) -> None:
    """Start a training that would take too long, and end it as soon as `reached()`."""
    bench.run_until(model.dataset, step, *_training_arguments(model, fold), reached=reached, env=env)


def _training_arguments(model: Model, fold: int | str, *flags: object) -> list[object]:
    command: list[object] = ["nnUNetv2_train"]
    if model.trainer == STOCK:
        command = [sys.executable, LAUNCHER, EPOCHS, ITERATIONS, VALIDATION_ITERATIONS]
    target = [model.number, model.configuration, fold, "-p", model.plans, "-tr", model.trainer]
    return [*command, *target, *flags, "-device", "cpu"]


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint; our own reading, so that a file of half a write is an error."""
    from nnunet_topo.training.checkpoint import read_checkpoint as read

    return read(file)


def journal_lines(fold_folder: Path) -> list[dict[str, Any]]:
    """Lines of a fold's journal, none when there is no file."""
    from nnunet_topo.training.journal import Journal

    return Journal(fold_folder / "topo_journal.jsonl").lines()


def epoch_lines(fold_folder: Path) -> list[dict[str, Any]]:
    """The journal's lines of finished epochs."""
    return [line for line in journal_lines(fold_folder) if line["kind"] == "epoch"]


def check_journal(bench: Bench, model: Model, fold: int | str, resumed_at: int | None = None) -> None:
    """Every epoch once, the weights of an uninterrupted run, losses that are the weighted sums, the artefacts."""
    folder = model.folder(bench.results) / f"fold_{fold}"
    what = f"fold {fold}: journal" + ("" if resumed_at is None else f", resumed at epoch {resumed_at}")
    with bench.check(model.dataset, what):
        lines = epoch_lines(folder)
        epochs = [line["epoch"] for line in lines]
        assert epochs == list(range(EPOCHS)), f"epochs in the journal: {epochs}"
        for line, expected in zip(lines, WEIGHTS, strict=True):
            active = {name: weight for name, weight in line["weights"].items() if weight > 0}
            assert active.keys() == expected.keys(), f"epoch {line['epoch']}: weights {active}, expected {expected}"
            for name, weight in expected.items():
                assert abs(active[name] - weight) < 1e-9, f"epoch {line['epoch']}: {name} {active[name]}"
            for part in ("train", "validation"):
                total, terms = line[part]["loss"], line[part]["weighted"]
                assert terms.keys() == expected.keys(), f"epoch {line['epoch']}: terms {list(terms)}"
                assert abs(total - sum(terms.values())) < 1e-4, f"epoch {line['epoch']}: {part} {total} != {terms}"
        starts = [line for line in journal_lines(folder) if line.get("what") in ("start", "resume")]
        expected_starts = [("start", 0)] + ([] if resumed_at is None else [("resume", resumed_at)])
        found = [(line["what"], line["epoch"]) for line in starts]
        assert found == expected_starts, f"start events {found}, expected {expected_starts}"
        phases = [line["epoch"] for line in journal_lines(folder) if line.get("what") == "phase"]
        assert phases == [1, 3], f"phase events at {phases}"
        expect_files(folder, ("checkpoint_final.pth", "progress.png", "progress_topo.png", "topo_recipe.yaml"))


def check_validation(bench: Bench, model: Model, fold: int | str, *, probabilities: bool, step: str = "") -> None:
    """The fold's validation holds a segmentation a case and a mean Dice; with --npz the probabilities too."""
    folder = model.folder(bench.results) / f"fold_{fold}" / "validation"
    with bench.check(model.dataset, step or f"fold {fold}: validation files, {model.trainer}"):
        splits = read_json(bench.preprocessed / model.dataset / "splits_final.json")
        ending = read_json(model.folder(bench.results) / "dataset.json")["file_ending"]
        cases = [case for split in splits for case in split["val"]] if fold == "all" else splits[int(fold)]["val"]
        expect_files(folder, [f"{case}{ending}" for case in cases])
        if probabilities:
            expect_files(folder, [f"{case}.npz" for case in cases])
        dice = read_json(folder / "summary.json")["foreground_mean"]["Dice"]
        assert 0 <= dice <= 1, f"mean Dice {dice}"


def expect_files(folder: Path, names: Iterable[str]) -> None:
    """Fail when one of the files is missing or empty."""
    missing = [name for name in names if not (folder / name).is_file() or not (folder / name).stat().st_size]
    assert not missing, f"missing or empty in {folder.name}: {missing}"
