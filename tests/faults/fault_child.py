"""What runs in a training that is to be disturbed; the warm process that it is forked from has imported this module."""

from __future__ import annotations

import io
import itertools
import math
import multiprocessing
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import batchgeneratorsv2.transforms.noise.gaussian_blur as blur
import nnunetv2.training.logging.nnunet_logger
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

from nnunet_topo.errors import TopoError
from nnunet_topo.training import atomic, trainers

DATASET = "Dataset901_plain"


@dataclass(frozen=True)
class Disturbance:
    """What goes wrong in a training.

    Attributes:
        kind: "none", "clock" (kill -9 some time behind a step), "bytes" (kill -9 once so many bytes of a checkpoint are
            written, or all), "rename" (kill -9 around its renaming), "signal" (sent to itself behind a step), "signal
            to all" (to its workers before), "file size" (no file may grow past that many bytes), "nan" (the images of
            some steps).
        save: number of the checkpoint, counted from 0 over all of the run.
        delay_s: time behind the step.
        when: "before" the first rename, "between" the two of a latest one, "after" the last.
        name: of the signal.
        step: number of the step, validation steps included, counted from 0 over the process; -1 for its start.
        steps: how many, from `step` on.
        size_bytes: limit on every file, or of that checkpoint.
    """

    kind: str = "none"
    save: int = 0
    delay_s: float = 0.0
    when: str = "before"
    name: str = "SIGTERM"
    step: int = 0
    steps: int = 1
    size_bytes: int = 0


@dataclass(frozen=True)
class Order:
    """One training: nnUNetv2_train up to its final validation."""

    environment: dict[str, str]
    log: Path
    ledger: Path
    continues: bool = False
    validates: bool = False
    disturbance: Disturbance = field(default_factory=Disturbance)
    clock: str = "even"


def train(order: Order) -> None:
    """Follow an order and end the process with the exit status of nnUNetv2_train."""
    os.environ.update(order.environment)
    descriptor = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(1, "w"), write_through=True)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # Linux's own, which a child of a fork server does not have
    _set_clock(order.clock)
    trainers.draw_progress = lambda *_, **__: None
    nnunetv2.training.logging.nnunet_logger.LocalLogger.plot_progress_png = lambda *_: None
    try:
        _disturb(order.disturbance)
        _keep_ledger(order.ledger)
        trainer = get_trainer_from_args(
            DATASET, "3d_fullres", 0, "nnUNetTrainerTopo", "nnUNetPlans", order.continues, torch.device("cpu")
        )
        maybe_load_checkpoint(trainer, order.continues, order.validates, None)
        if not order.validates:
            trainer.run_training()
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.join()  # its kill comes behind the end
        os._exit(0)
    except SystemExit as stop:
        os._exit(int(stop.code or 0))
    except TopoError as error:
        os.write(2, f"error: {error}\n".encode())
        os._exit(1)
    except Exception:
        traceback.print_exc()
        os._exit(2)


def _set_clock(kind: str) -> None:
    """Let the clock that nnU-Net's blur asks prefer one path: an even one convolution, one that slows down FFT."""
    ticks = itertools.count(1)
    blur.time = (lambda: float(next(ticks))) if kind == "even" else (lambda: math.sqrt(next(ticks)))


def _keep_ledger(ledger: Path) -> None:
    """Note every checkpoint once it is saved: file, epoch to go on with, steps done of it."""
    save = trainers.nnUNetTrainerTopo.save_checkpoint

    def noted(self: Any, filename: str) -> None:
        save(self, filename)
        epoch, steps = self.current_epoch + (self.progress is None), self.progress.steps if self.progress else 0
        with open(ledger, "ab", buffering=0) as file:
            file.write(f"{Path(filename).name} {epoch} {steps}\n".encode())

    trainers.nnUNetTrainerTopo.save_checkpoint = noted


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _disturb(disturbance: Disturbance) -> None:
    kinds: dict[str, Callable[[Disturbance], None]] = {
        "none": lambda _: None,
        "clock": _kill_behind_a_step,
        "bytes": _kill_while_writing,
        "rename": _kill_around_rename,
        "signal": _signal_behind_a_step,
        "signal to all": _signal_workers_too,
        "file size": lambda asked: resource.setrlimit(resource.RLIMIT_FSIZE, (asked.size_bytes, asked.size_bytes)),
        "nan": _spoil_images,
    }
    kinds[disturbance.kind](disturbance)


def _kill_behind_a_step(asked: Disturbance) -> None:
    timer = threading.Timer(asked.delay_s, _kill)
    timer.daemon = True
    if asked.step < 0:
        timer.start()
    _behind_steps(lambda step: timer.start() if step == asked.step else None)


def _kill_while_writing(asked: Disturbance) -> None:
    numbers = itertools.count()

    class Killing(io.FileIO):
        """A file that kills its process in the middle of a write."""

        def __init__(self, path: Any, limit: int) -> None:
            super().__init__(path, "w")
            self.left = limit

        def write(self, data: Any) -> int:
            part = memoryview(data).cast("B")[: self.left]
            super().write(part)
            self.left -= len(part)
            if self.left <= 0:
                _kill()
            return len(part)

        def close(self) -> None:
            _kill()  # the checkpoint was smaller: it is written, but not yet in its place

    def opened(path: Any, mode: str) -> Any:
        if "checkpoint" in Path(path).name and next(numbers) == asked.save:
            return io.BufferedWriter(Killing(path, asked.size_bytes))
        return open(path, mode)

    atomic.open = opened  # type: ignore[attr-defined]


def _kill_around_rename(asked: Disturbance) -> None:
    """The renames of a save are those up to that of the temporary file."""
    replace, saves = os.replace, itertools.count()
    number = next(saves)

    def replaced(source: Any, target: Any) -> None:
        nonlocal number
        is_checkpoint = "checkpoint" in Path(target).name
        is_last = is_checkpoint and Path(source).suffix == ".tmp"
        if is_checkpoint and number == asked.save:
            if asked.when == "before" or (asked.when == "between" and is_last):
                _kill()
            replace(source, target)
            if is_last:
                _kill()
            return
        replace(source, target)
        if is_last:
            number = next(saves)

    os.replace = replaced


def _behind_steps(do: Callable[[int], None]) -> None:
    numbers = itertools.count()
    for name in ("train_step", "validation_step"):
        original = getattr(trainers.nnUNetTrainerTopo, name)

        def step(self: Any, batch: Any, original: Any = original) -> Any:
            outputs = original(self, batch)
            do(next(numbers))
            return outputs

        setattr(trainers.nnUNetTrainerTopo, name, step)


def _signal_behind_a_step(asked: Disturbance) -> None:
    number = getattr(signal, asked.name)
    _behind_steps(lambda step: os.kill(os.getpid(), number) if step == asked.step else None)


def _signal_workers_too(asked: Disturbance) -> None:
    number = getattr(signal, asked.name)

    def send(step: int) -> None:
        if step == asked.step:
            workers = [worker.pid for worker in multiprocessing.active_children()]
            assert workers
            for process in (*workers, os.getpid()):
                os.kill(process, number)

    _behind_steps(send)


def _spoil_images(asked: Disturbance) -> None:
    original, numbers = trainers.nnUNetTrainerTopo.train_step, itertools.count()

    def step(self: Any, batch: dict[str, Any]) -> Any:
        if asked.step <= next(numbers) < asked.step + asked.steps:
            batch["data"][0, 0, 0, 0, 0] = math.nan
        return original(self, batch)

    trainers.nnUNetTrainerTopo.train_step = step
