"""What a results folder says of the training in it: files of nnU-Net and, where there are any, of this package."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_topo.control import PhaseControl
from nnunet_topo.data.descriptions import read_dataset_json, read_plans_file
from nnunet_topo.data.raw import read_json
from nnunet_topo.errors import CheckpointError, DataError, TopoError
from nnunet_topo.recipe import Recipe, load_recipe
from nnunet_topo.training.checkpoint import TOPO_KEY, read_checkpoint
from nnunet_topo.training.journal import Journal
from nnunet_topo.training.resolution import RECIPE_FILE

JOURNAL_FILE = "topo_journal.jsonl"
EXPECTED_EVENTS = ("phase", "start", "start_from", "resume")
_FACTS = ("device", "gpu_name", "torch_version", "num_epochs")  # of nnU-Net's debug.json


@dataclass(frozen=True)
class FoldRun:
    """One trained fold.

    Attributes:
        name: such as `fold_0`.
        folder: where it lies.
        lines: of the journal; for a stock trainer what its log says, in the same form.
        has_journal: False when `lines` are from the log.
        recipe: None for a stock trainer.
        facts: device, gpu_name, torch_version, num_epochs as nnU-Net noted them, and nnunet_topo.
        notes: what could not be read.
    """

    name: str
    folder: Path
    lines: tuple[Mapping[str, Any], ...]
    has_journal: bool
    recipe: Recipe | None
    facts: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def epochs(self) -> list[Mapping[str, Any]]:
        """Lines of finished epochs, ascending, the last of each."""
        by_epoch = {int(line["epoch"]): line for line in self.lines if line["kind"] == "epoch"}
        return [line for _, line in sorted(by_epoch.items())]

    @property
    def events(self) -> list[Mapping[str, Any]]:
        """Lines of decisions."""
        return [line for line in self.lines if line["kind"] == "event"]

    @property
    def interventions(self) -> list[Mapping[str, Any]]:
        """Decisions that answer to what training did, not to the calendar or the command line."""
        return [
            event
            for event in self.events
            if event.get("what") not in EXPECTED_EVENTS and not str(event.get("what")).endswith("not applied")
        ]

    @property
    def planned(self) -> int:
        """Epochs that the run was to have."""
        finished = int(self.epochs[-1]["epoch"]) + 1 if self.epochs else 0
        noted = self.facts.get("num_epochs", "")
        return max(self.recipe.epochs if self.recipe else int(noted) if noted.isdigit() else 0, finished)

    @property
    def phases(self) -> list[tuple[int, str]]:
        """First epoch and weights of each phase; none for a stock trainer."""
        return list(PhaseControl(self.recipe).labels()) if self.recipe else []

    @property
    def duration_s(self) -> float:
        """Seconds of all finished epochs."""
        return math.fsum(line.get("duration_s") or 0.0 for line in self.epochs)


@dataclass(frozen=True)
class Run:
    """A model folder.

    Attributes:
        folder: of the model.
        trainer: name of its class.
        plans_name: as in nnUNetPlans.
        configuration: as in 3d_fullres.
        plans: content of plans.json, empty if there is none.
        dataset_json: content of dataset.json, empty if there is none.
        folds: at least one.
    """

    folder: Path
    trainer: str
    plans_name: str
    configuration: str
    plans: Mapping[str, Any]
    dataset_json: Mapping[str, Any]
    folds: tuple[FoldRun, ...]

    @property
    def dataset(self) -> str:
        """Folder name of the dataset."""
        return str(self.plans.get("dataset_name") or self.folder.parent.name)


def read_run(folder: Path) -> Run:
    """Everything about a training.

    Args:
        folder: TRAINER__PLANS__CONFIGURATION, or one fold in it.

    Raises:
        DataError: there is no such folder, it holds no folds, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"results: expected a model folder, got no such folder. {folder}. Check the path.")
    folder = folder.resolve()
    is_fold = folder.name.startswith("fold_") and (folder.parent / "plans.json").is_file()
    model = folder.parent if is_fold else folder
    folds = [folder] if is_fold else sorted(path for path in model.glob("fold_*") if path.is_dir())
    if not folds:
        raise DataError(f"results: expected a folder with fold_*, got none. {folder}. {_advice(folder)}")
    # A trainer's name may hold "__" itself; those of plans and configurations may not.
    trainer, plans_name, configuration = [*model.name.rsplit("__", 2), "", ""][:3]
    return Run(
        model,
        trainer,
        plans_name,
        configuration,
        read_plans_file(model / "plans.json") if (model / "plans.json").is_file() else {},
        read_dataset_json(model / "dataset.json") if (model / "dataset.json").is_file() else {},
        tuple(_read_fold(fold) for fold in folds),
    )


def _advice(folder: Path) -> str:
    models = sorted(path.name for path in folder.glob("*__*__*") if any(path.glob("fold_*")))
    if models:
        return f"Name one of its models: {', '.join(models)}."
    return "Name a model folder (TRAINER__PLANS__CONFIGURATION), or for predictions give --ground-truth."


def _read_fold(folder: Path) -> FoldRun:
    notes = []
    lines = Journal(folder / JOURNAL_FILE).lines()
    has_journal = any(line["kind"] == "epoch" for line in lines)
    if not has_journal:
        lines = log_lines(sorted(folder.glob("training_log_*.txt")))
        source = "the curves are read from nnU-Net's log" if lines else "no training log either, so there are no curves"
        notes.append(f"no {JOURNAL_FILE} with finished epochs: {source}")
    recipe = None
    if (folder / RECIPE_FILE).is_file():
        try:
            recipe = load_recipe(folder / RECIPE_FILE)
        except TopoError as error:
            notes.append(f"its recipe cannot be read: {error}")
    debug = _optional_json(folder / "debug.json")
    facts = {key: str(debug[key]) for key in _FACTS if debug.get(key) not in (None, "None")}
    facts.update(_version(folder, notes) if recipe else {})
    return FoldRun(folder.name, folder, tuple(lines), has_journal, recipe, facts, tuple(notes))


def _version(folder: Path, notes: list[str]) -> dict[str, str]:
    """Version of this package that the newest checkpoint names."""
    for name in ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"):
        if (folder / name).is_file():
            try:
                return {"nnunet_topo": str(read_checkpoint(folder / name)[TOPO_KEY].get("version", ""))}
            except CheckpointError as error:
                notes.append(str(error))
    return {}


def log_lines(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Epoch lines as a journal has them, from nnU-Net's training logs.

    Args:
        files: oldest first; of an epoch that was repeated the last counts.

    Returns:
        Ascending; without terms, weights and foreground, which stock nnU-Net does not log.
    """
    by_epoch: dict[int, dict[str, Any]] = {}
    for file in files:
        line: dict[str, Any] = {}
        for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
            said = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: ", "", text).strip()
            if match := re.fullmatch(r"Epoch (\d+)", said):
                line = {"kind": "epoch", "epoch": int(match[1]), "train": {}, "validation": {}}
            elif match := re.fullmatch(r"Current learning rate: (\S+)", said):
                line["lr"] = _number(match[1])
            elif match := re.fullmatch(r"(train|val)_loss (\S+)", said):
                line.setdefault("train" if match[1] == "train" else "validation", {})["loss"] = _number(match[2])
            elif match := re.fullmatch(r"Pseudo dice \[(.*)\]", said):
                line.setdefault("validation", {}).update(_pseudo_dice(match[1]))
            elif (match := re.fullmatch(r"Epoch time: (\S+) s", said)) and "epoch" in line:
                by_epoch[line["epoch"]] = {**line, "duration_s": _number(match[1])}
    return [line for _, line in sorted(by_epoch.items())]


def _pseudo_dice(text: str) -> dict[str, Any]:
    values = [_number(re.sub(r"np\.float\d+\((.*)\)", r"\1", word.strip())) for word in text.split(",") if word.strip()]
    finite = [value for value in values if value is not None]
    return {"pseudo_dice": values, "mean_pseudo_dice": sum(finite) / len(finite) if finite else None}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _optional_json(path: Path) -> Mapping[str, Any]:
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, Mapping) else {}
