from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_topo.training.loggers import TensorBoardLogger, forward_epoch, tensorboard_logger

LINE = {
    "kind": "epoch",
    "epoch": 4,
    "phase": 1,
    "lr": 0.01,
    "lr_multiplier": 1.5,
    "weights": {"dice": 0.75, "cldice": 0.0},
    "train": {"loss": 0.6, "terms": {"dice": 0.8}, "weighted": {"dice": 0.6}},
    "validation": {
        "loss": None,
        "terms": {"dice": float("nan")},
        "weighted": {"dice": 0.3},
        "pseudo_dice": [0.5, None],
        "mean_pseudo_dice": np.float32(0.5),
        "ema_pseudo_dice": 0.25,
        "foreground_predicted": 0.05,
        "foreground_labelled": None,
    },
    "monitors": {"reference_loss": 0.4, "topology_error": None},
    "reference_terms": {"dice": 0.3},
    "conflict": {"dice|cldice": -0.25},
    "duration_s": 61.5,
}
SENT = {
    "topo/phase": 1,
    "topo/lr": 0.01,
    "topo/lr_multiplier": 1.5,
    "topo/duration_s": 61.5,
    "topo/weight/dice": 0.75,
    "topo/weight/cldice": 0.0,
    "topo/loss/train": 0.6,
    "topo/train/dice": 0.8,
    "topo/train_weighted/dice": 0.6,
    "topo/validation_weighted/dice": 0.3,
    "topo/pseudo_dice/class_1": 0.5,
    "topo/pseudo_dice/mean": 0.5,
    "topo/pseudo_dice/ema": 0.25,
    "topo/foreground/predicted": 0.05,
    "topo/monitor/reference_loss": 0.4,
    "topo/reference/dice": 0.3,
    "topo/conflict/dice-cldice": -0.25,
}


class FakeLogger:
    def __init__(self) -> None:
        self.logged: list[tuple[str, Any, int]] = []

    def update_config(self, config: dict[str, Any]) -> None:
        raise AssertionError("not part of an epoch")

    def log(self, key: str, value: Any, step: int) -> None:
        self.logged.append((key, value, step))

    def log_summary(self, key: str, value: Any) -> None:
        raise AssertionError("not part of an epoch")


class FakeWriter:
    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.texts: dict[str, str] = {}
        self.flushed = False

    def add_scalar(self, key: str, value: float, step: int) -> None:
        self.scalars.append((key, value, step))
        self.flushed = False

    def add_text(self, key: str, text: str, step: int) -> None:
        self.texts[key] = text
        self.flushed = False

    def flush(self) -> None:
        self.flushed = True


def test_every_number_of_an_epoch_reaches_every_logger_once() -> None:
    loggers = [FakeLogger(), FakeLogger()]
    forward_epoch(loggers, LINE)
    for logger in loggers:
        assert {key: value for key, value, _ in logger.logged} == SENT
        assert len(logger.logged) == len(SENT)
        assert {step for _, _, step in logger.logged} == {4}
        assert all(type(value) is float for _, value, _ in logger.logged)


def test_an_epoch_without_validation_is_sent_as_far_as_it_goes() -> None:
    logger = FakeLogger()
    forward_epoch([logger], {"epoch": 0, "lr": 1.0})
    assert logger.logged == [("topo/lr", 1.0, 0)]


def test_tensorboard_gets_scalars_by_class_and_no_text() -> None:
    writer = FakeWriter()
    logger = TensorBoardLogger(writer)
    logger.log("dice", [0.5, np.float32(0.25), None, float("nan")], 3)
    logger.log("array", np.array([1.0, 2.0]), 3)
    logger.log("scalar", np.array(7), 3)
    logger.log("text", "hello", 3)
    assert writer.scalars == [
        ("dice/class_1", 0.5, 3),
        ("dice/class_2", 0.25, 3),
        ("array/class_1", 1.0, 3),
        ("array/class_2", 2.0, 3),
        ("scalar", 7.0, 3),
    ]
    logger.log_summary("final_val/foreground_dice", 0.9)
    assert writer.scalars[-1] == ("summary/final_val/foreground_dice", 0.9, 3)
    assert writer.flushed


def test_settings_become_text_even_where_json_has_no_form_for_them() -> None:
    writer = FakeWriter()
    TensorBoardLogger(writer).update_config({"fold": 1, "plans": {"path": Path("somewhere")}})
    assert json.loads(writer.texts["config/plans"]) == {"path": "somewhere"}
    assert json.loads(writer.texts["config/fold"]) == 1
    assert writer.flushed


def test_without_the_package_there_is_no_tensorboard_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_tensorboard(name: str, *args: Any, **kwargs: Any) -> Any:
        if "tensorboard" in name:
            raise ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_tensorboard)
    assert tensorboard_logger(tmp_path, resume_epoch=None) is None
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_reads_back_what_was_written_and_a_resume_hides_what_is_repeated(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = tensorboard_logger(tmp_path, resume_epoch=None)
    assert first is not None
    first.update_config({"fold": 0})
    for epoch in range(5):
        forward_epoch([first], {**LINE, "epoch": epoch, "lr": 1.0})
    resumed = tensorboard_logger(tmp_path, resume_epoch=3)
    assert resumed is not None
    for epoch in range(3, 6):
        forward_epoch([resumed], {**LINE, "epoch": epoch, "lr": 2.0})
    resumed.log_summary("dice", 0.5)

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {*SENT, "summary/dice"}
    assert [(event.step, event.value) for event in events.Scalars("topo/lr")] == [
        *((epoch, 1.0) for epoch in range(3)),
        *((epoch, 2.0) for epoch in range(3, 6)),
    ]
    assert [event.step for event in events.Scalars("summary/dice")] == [5]
