"""Trainings that are disturbed, and what is asked of every one of them afterwards."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import shutil
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import perf_counter
from types import ModuleType, TracebackType
from typing import Any

import torch
import yaml

from nnunet_topo.training.checkpoint import read_checkpoint
from nnunet_topo.training.existing_run import RESUMABLE, newest_valid
from nnunet_topo.training.journal import Journal

RECIPE: dict[str, Any] = {
    "name": "faults",
    "epochs": 4,
    "iterations_per_epoch": 3,
    "validation_iterations": 2,
    "checkpoint_every": 1,
    "seed": 5,
    "max_nonfinite_steps": 3,
    "noise": {"start": 1, "every": 2, "std": 1.0e-3},
    "averaging": {"kind": "ema", "start": 1, "decay": 0.7},
    "plateau": {"patience": 1, "threshold": 0.9, "cooldown": 0, "max_interventions": 2},
    "rollback": {"degradation_epochs": 1},
    "early_stopping": {"patience": 3},
    "conflict_every": 2,
    "phases": [
        {"from": 0, "weights": {"dice": 1.0}},
        {"from": 1, "weights": {"dice": 0.7, "focal": 0.3}, "ramp_epochs": 2},
    ],
}
STEPS_PER_EPOCH = RECIPE["iterations_per_epoch"] + RECIPE["validation_iterations"]
STEPS = RECIPE["epochs"] * STEPS_PER_EPOCH
MODULES = ["nnunetv2.run.run_training", "nnunet_topo.training.trainers", "fault_child"]
TIME_LIMIT_S = 300


@dataclass(frozen=True)
class Training:
    """A training that is over.

    Attributes:
        status: its exit status, negative for the signal that ended it.
        said: its log, standard output and errors.
        folder: of the fold.
        ledger: checkpoints that were saved as a whole: name, epoch to go on with, steps done of it.
    """

    status: int
    said: str
    folder: Path
    ledger: list[tuple[str, int, int]]

    def line(self, start: str) -> str:
        """The first line of the log that holds a text, from it on."""
        return next((line[line.index(start) :] for line in self.said.splitlines() if start in line), "")


class Bench:
    """A tiny dataset, and a process that has imported everything, from which trainings are forked.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._results: dict[str, Path] = {}
        self._context = multiprocessing.get_context("forkserver")

    def __enter__(self) -> Bench:
        """Make the dataset, start the warm process, train once without a fault."""
        roots = {name: str(self.root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed")}
        recipe = self.root / "faults.yaml"
        recipe.write_text(yaml.safe_dump(RECIPE))
        other = self.root / "other.yaml"
        other.write_text(yaml.safe_dump({**RECIPE, "name": "other", "optimizer": {"lr": 0.5}}))
        self.environment = {
            **roots, "nnUNet_n_proc_DA": "0", "nnUNet_compile": "f", "nnUNet_def_n_proc": "1",
            "NNUNET_TOPO_RECIPE": str(recipe), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        before = {name: os.environ.get(name) for name in roots}
        os.environ.update(roots)
        try:
            dataset = _dataset_module()
            dataset.write_raw_dataset(Path(roots["nnUNet_raw"]) / "Dataset901_plain", "plain")
            dataset.preprocess("Dataset901_plain")
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name)
                else:
                    os.environ[name] = value
        self._context.set_forkserver_preload(MODULES)
        self.train("warm up")
        start = perf_counter()
        self.whole = self.train("whole")
        self.duration_s = perf_counter() - start
        assert self.whole.status == 0, self.whole.said
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """The warm process ends with this one."""

    def train(self, case: str, *, environment: dict[str, str] | None = None, **order: Any) -> Training:
        """Run a training until it ends.

        Args:
            case: trainings of the same case share a results folder.
            environment: more variables.
            **order: of the child's `Order`.
        """
        process, log, ledger = self._start(case, environment or {}, order)
        process.join(TIME_LIMIT_S)
        assert process.exitcode is not None, f"{case}: still running after {TIME_LIMIT_S} s"
        entries = [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []
        saved = [(name, int(epoch), int(steps)) for name, epoch, steps in entries]
        return Training(process.exitcode, log.read_text(errors="replace"), self.folder(case), saved)

    def _start(self, case: str, environment: dict[str, str], order: dict[str, Any]) -> tuple[BaseProcess, Path, Path]:
        from fault_child import Order, train

        place = self.root / "cases" / case
        (place / "results").mkdir(parents=True, exist_ok=True)
        number = len(list(place.glob("*.log")))
        log, ledger = place / f"{number}.log", place / f"{number}.ledger"
        variables = {**self.environment, "nnUNet_results": str(place / "results"), **environment}
        process = self._context.Process(target=train, args=(Order(variables, log, ledger, **order),))
        process.start()
        return process, log, ledger

    def folder(self, case: str) -> Path:
        """The fold's folder of a case."""
        model = "nnUNetTrainerTopo__nnUNetPlans__3d_fullres"
        return self.root / "cases" / case / "results" / "Dataset901_plain" / model / "fold_0"

    def copy(self, source: str, case: str) -> Path:
        """Take the state on disk of another case over; gives the fold's folder."""
        folder = self.folder(case)
        shutil.copytree(self.folder(source).parents[2], folder.parents[2], dirs_exist_ok=True)
        return folder

    def check_state(self, training: Training) -> None:
        """Every checkpoint on disk is whole, none that was saved is lost, and the journal can be read."""
        for file in training.folder.glob("checkpoint_*.pth"):
            read_checkpoint(file)
        Journal(training.folder / "topo_journal.jsonl").lines()
        saved = [(epoch, steps) for name, epoch, steps in training.ledger if name in RESUMABLE]
        if saved:
            choice = newest_valid(training.folder)
            position = choice.checkpoint["nnunet_topo"]["position"]
            reached = (choice.checkpoint["current_epoch"], position["steps"] if position else 0)
            assert reached >= max(saved), (reached, training.ledger)

    def go_on(self, case: str) -> Training:
        """Continue with `--c`, or start where nothing was saved, to the very weights of the undisturbed training.

        The clock of nnU-Net's blur prefers the other path now: only what the checkpoint holds keeps the first one.
        """
        if newest_valid(self.folder(case)).file is None:
            refused = self.train(case, continues=True)
            assert refused.status == 1, refused.said
            assert "error: --c: expected one of" in refused.said
            training = self.train(case)
        else:
            training = self.train(case, continues=True, clock="slowing")
            assert training.line("[topo] --c: "), training.said
        assert training.status == 0, training.said
        self.check_end(training)
        return training

    def check_end(self, training: Training) -> None:
        """The state and the journal of a finished training are those of the undisturbed one."""
        ours, whole = (read_checkpoint(one.folder / "checkpoint_final.pth") for one in (training, self.whole))
        for key in ("network_weights", "optimizer_state", "_best_ema", "current_epoch"):
            assert_equal(ours[key], whole[key], key)
        for key in ("controls", "average", "position", "nonfinite_in_a_row", "ranks"):
            assert_equal(ours["nnunet_topo"][key], whole["nnunet_topo"][key], key)
        assert journal(training) == journal(self.whole)


def assert_equal(ours: Any, whole: Any, where: str) -> None:
    """Two pieces of a checkpoint hold the same, bit for bit."""
    assert type(ours) is type(whole), where
    if isinstance(whole, dict):
        assert ours.keys() == whole.keys(), where
        for key, value in whole.items():
            assert_equal(ours[key], value, f"{where}.{key}")
    elif isinstance(whole, (list, tuple)):
        assert len(ours) == len(whole), where
        for index, value in enumerate(whole):
            assert_equal(ours[index], value, f"{where}.{index}")
    else:
        assert torch.equal(ours, whole) if isinstance(whole, torch.Tensor) else ours == whole, where


def journal(training: Training) -> list[dict[str, Any]]:
    """Journal lines without durations and without those about starting and resuming."""
    lines = Journal(training.folder / "topo_journal.jsonl").lines()
    own = ("start", "resume", "checkpoint rejected")
    return [{**line, "duration_s": None} for line in lines if line.get("what") not in own]


def _dataset_module() -> ModuleType:
    """The dataset of the trainer tests, whose conftest pytest imports under no name of its own."""
    file = Path(__file__).parents[1] / "training" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_dataset", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_dataset"] = module
    spec.loader.exec_module(module)
    return module
