"""Signals that ask a training to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from nnunet_topo.training.signals import DDP_CHECK_EVERY, EXIT_CODES, StopSignals
from nnunet_topo.training.trainers import nnUNetTrainerTopo

CPU = torch.device("cpu")
NAMES = ("SIGTERM", "SIGUSR1")
WORKER = Path(__file__).with_name("agreement_worker.py")


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_is_noted_and_the_old_handlers_come_back(name: str) -> None:
    before = {each: signal.getsignal(getattr(signal, each)) for each in (*NAMES, "SIGINT")}
    with StopSignals() as signals:
        assert signals.pending(1, CPU) is None
        assert signal.getsignal(signal.SIGINT) == before["SIGINT"]
        os.kill(os.getpid(), getattr(signal, name))
        assert signals.pending(2, CPU) == name
    assert {each: signal.getsignal(getattr(signal, each)) for each in before} == before


def test_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), StopSignals():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) == before


def test_only_the_main_thread_installs_them() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def enter() -> None:
        with StopSignals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


def test_exit_codes_are_the_documented_ones() -> None:
    assert EXIT_CODES == {"SIGTERM": 143, "SIGUSR1": 75, "SIGINT": 130}


@pytest.mark.parametrize(("name", "times", "status"), [("SIGTERM", 1, 7), ("SIGUSR1", 1, 7), ("SIGTERM", 2, 143)])
def test_a_forked_worker_outlives_the_first_signal_only(name: str, times: int, status: int) -> None:
    """A scheduler signals workers too; nnU-Net itself ends those that hang with a second one."""
    with StopSignals():
        pid = os.fork()
        if pid == 0:
            for _ in range(times):
                os.kill(os.getpid(), getattr(signal, name))
            os._exit(7)
        _, ended = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(ended) == status


def test_a_forked_worker_whose_parent_is_gone_ends_at_once() -> None:
    reader, writer = os.pipe()
    with StopSignals():
        child = os.fork()
        if child == 0:
            orphan = os.fork()
            if orphan == 0:
                os.write(writer, b"started ")
                os.kill(os.getpid(), signal.SIGTERM)
                os.write(writer, b"still there")
                os._exit(0)
            os._exit(0)
        os.waitpid(child, 0)
    os.close(writer)
    said = b""
    while part := os.read(reader, 100):
        said += part
    assert said == b"started "


def test_a_signal_while_the_final_checkpoint_is_written_ends_the_process_behind_it(make_trainer) -> None:
    phases = [{"from": 0, "weights": {"dice": 1.0}}]
    recipe = {"name": "one", "epochs": 1, "iterations_per_epoch": 1, "validation_iterations": 1, "phases": phases}
    trainer = make_trainer(nnUNetTrainerTopo, recipe=recipe)
    original = trainer.on_train_end

    def signalled() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        original()

    trainer.on_train_end = signalled
    with pytest.raises(SystemExit) as ended:
        trainer.run_training()
    assert ended.value.code == 143
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").is_file()


@pytest.mark.slow
def test_ranks_agree(tmp_path: Path) -> None:
    """One rank gets a signal, or a loss that is not finite; both do the same at the same step."""
    ranks = [
        subprocess.Popen([sys.executable, str(WORKER), str(rank), str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    first, second = (process.communicate(timeout=300)[0].splitlines() for process in ranks)
    assert [process.returncode for process in ranks] == [0, 0]
    assert first == second
    assert first == [
        f"stopped at {DDP_CHECK_EVERY} by SIGUSR1",
        "in a row [0, 1, 0, 1], cases ['a0', 'b0', 'a1', 'b1']",
        "norms are nan [False, True, False, True]",
        "weights unchanged [False, True, False, True]",
    ]


def test_ranks_ask_each_other_however_short_an_epoch_is(make_trainer, monkeypatch) -> None:
    """Steps count on over the epochs: 4 of them an epoch would never come to a multiple of DDP_CHECK_EVERY."""
    phases = [{"from": 0, "weights": {"dice": 1.0}}]
    recipe = {"name": "short", "epochs": 3, "iterations_per_epoch": 3, "validation_iterations": 1, "phases": phases}
    trainer, asked = make_trainer(nnUNetTrainerTopo, recipe=recipe), []
    monkeypatch.setattr(StopSignals, "pending", lambda self, step, device: asked.append(step))
    trainer.run_training()
    assert asked == [*range(1, 13), 0]
