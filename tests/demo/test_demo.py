from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DEMO = Path(__file__).parents[2] / "demo"
MODULES = ("demo", "steps", "stock_short")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import a module of the demo, which is a folder of scripts and not a package."""
    monkeypatch.syspath_prepend(str(DEMO))

    def load_module(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load_module
    for name in MODULES:
        sys.modules.pop(name, None)


def test_a_shortened_trainer_keeps_the_signature_that_nnunet_reads(load: Any) -> None:
    class Trainer:
        num_epochs: int

        def __init__(self, plans: dict[str, Any], fold: int = 0) -> None:
            arguments = []
            for name in inspect.signature(self.__init__).parameters:
                arguments.append(locals()[name])
            assert arguments == [plans, fold] == [{"a": 1}, 3]
            self.num_epochs = 1000

    load("stock_short").shorten(Trainer, 12, 16, 4)
    trainer: Any = Trainer({"a": 1}, fold=3)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (12, 16, 4)


def test_a_training_log_becomes_a_line_an_epoch(load: Any) -> None:
    show = load("steps").training_progress(12)
    log = [
        "2026-01-02 03:04:05.678901: Epoch 4",
        "2026-01-02 03:04:05.678901: Current learning rate: 0.007",
        "2026-01-02 03:04:05.678901: train_loss -0.123",
        "2026-01-02 03:04:05.678901: val_loss 0.25",
        "2026-01-02 03:04:05.678901: Pseudo dice [np.float32(0.8475), np.float64(0.5)]",
        "2026-01-02 03:04:05.678901: Epoch time: 2.5 s",
        "2026-01-02 03:04:05.678901: Mean Validation Dice: 0.9",
    ]
    shown = [text for text in map(show, log) if text]
    assert len(shown) == 2
    assert " ".join(shown[0].split()) == (
        "epoch 5 of 12 loss -0.123 train, 0.25 validation pseudo Dice 0.8475, 0.5 2.5 s"
    )
    assert shown[1] == "Mean Validation Dice: 0.9"


def test_a_step_shows_and_logs_its_output(load: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps = load("steps")
    run = steps.Runner(tmp_path, os.environ, count=1)
    with run.step("a step"):
        output = run.run("log", sys.executable, "-c", "print('shown'); print('hidden')", show=steps.only("^shown"))
    assert output == "shown\nhidden\n"
    assert (tmp_path / "logs" / "01_log.log").read_text() == output
    printed = capfd.readouterr().out
    assert "[1/1] a step" in printed
    assert "\n      shown\n" in printed
    assert "\n      hidden\n" not in printed
    assert "done in" in printed


def test_silence_is_broken(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = load("steps")
    monkeypatch.setattr(steps, "SILENCE_S", 0.5)
    steps.Runner(tmp_path, os.environ, count=1).run("log", sys.executable, "-c", "import time; time.sleep(2.5)")
    assert "still running" in capfd.readouterr().out


def test_a_failed_step_says_the_end_of_its_log(load: Any, tmp_path: Path) -> None:
    steps = load("steps")
    run = steps.Runner(tmp_path, os.environ, count=1)
    with pytest.raises(steps.StepFailed, match=r"(?s)status 3.*01_log\.log.*line 99\n$") as failure:
        run.run("log", sys.executable, "-c", "[print('line', n) for n in range(100)]; raise SystemExit(3)")
    assert "line 70\n" in str(failure.value)
    assert "line 69\n" not in str(failure.value)
    with pytest.raises(steps.StepFailed, match="no-such-program: expected it beside"):
        run.run("log", "no-such-program")


def test_the_environment_hides_the_callers_nnunet(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    monkeypatch.setenv("NNUNET_TOPO_RECIPE", "v9_progressive")
    monkeypatch.setenv("nnUNet_raw", "elsewhere")
    environment = load("demo").environment()
    assert "nnUNet_wandb_enabled" not in environment
    assert "NNUNET_TOPO_RECIPE" not in environment
    assert Path(environment["nnUNet_raw"]).parent.name == "demo_output"
