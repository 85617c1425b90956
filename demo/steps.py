"""Runs one command of the demo: its output goes to a log file whole and to the terminal shortened."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

SILENCE_S = 10.0  # after that long without a line, one says that the command is still running
TAIL_LINES = 30
WIDTH = 110

Shortener = Callable[[str], str | None]


class StepFailed(Exception):
    """A step of the demo went wrong; the message says what and shows the end of its log."""


@dataclass
class Runner:
    """The demo's steps: their number, their logs, their environment and how long they took.

    Attributes:
        folder: gets `logs/`.
        environment: of every command.
        count: number of steps announced.
        durations_s: name and seconds of each finished step.
    """

    folder: Path
    environment: Mapping[str, str]
    count: int
    durations_s: list[tuple[str, float]] = field(default_factory=list)
    started: float = field(default_factory=monotonic)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce a step, and its duration when it is done."""
        say(f"\n[{len(self.durations_s) + 1}/{self.count}] {name}")
        begin = monotonic()
        yield
        self.durations_s.append((name, monotonic() - begin))
        total = monotonic() - self.started
        say(f"      done in {self.durations_s[-1][1]:.1f} s ({int(total) // 60}:{int(total) % 60:02d} since the start)")

    def run(self, log: str, *command: object, show: Shortener = str) -> str:
        """Run a command to its end.

        Args:
            log: name of its log file.
            command: program, found beside the Python that runs the demo or on PATH, and its arguments.
            show: line -> what to print of it, None for nothing.

        Returns:
            Its whole output, stdout and stderr together.

        Raises:
            StepFailed: it is not installed, or its exit status is not 0.
        """
        path = self.folder / "logs" / f"{len(self.durations_s) + 1:02d}_{log}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        words = [_program(str(command[0])), *(str(word) for word in command[1:])]
        say("      $ " + " ".join(_shown(word) for word in words))
        begin = monotonic()
        process = subprocess.Popen(
            words,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,  # so that nnU-Net's worker processes can be ended with it
        )
        lines: list[str] = []
        try:
            with path.open("w", encoding="utf-8") as file:
                spoken = begin
                for line in _lines_and_ticks(process):
                    file.write(line or "")
                    lines.append(line or "")
                    shown = show(line.strip()) if line and line.strip() else None
                    if shown is None and monotonic() - spoken > SILENCE_S:
                        shown = f"... still running, {monotonic() - begin:.0f} s"
                    if shown:
                        say(f"      {shown[:WIDTH]}")
                        spoken = monotonic()
            status = process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if status != 0:
            tail = "".join(lines[-TAIL_LINES:])
            raise StepFailed(f"{Path(words[0]).name} ended with status {status}. The end of {path}:\n{tail}")
        return "".join(lines)


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def only(*patterns: str) -> Shortener:
    """A shortener that shows the lines in which one of the patterns is found."""
    found = re.compile("|".join(patterns))
    return lambda line: line if found.search(line) else None


def training_progress(epochs: int) -> Shortener:
    """A shortener for nnUNetv2_train: one line an epoch, then the cases of the validation."""
    state: dict[str, str] = {}

    def show(line: str) -> str | None:
        text = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: ", "", line)
        for key, pattern in (
            ("epoch", r"^Epoch (\d+)$"),
            ("train", r"^train_loss (\S+)"),
            ("validation", r"^val_loss (\S+)"),
            ("dice", r"^Pseudo dice \[(.*)\]"),
        ):
            if match := re.search(pattern, text):
                state[key] = re.sub(r"np\.float\d+\(([^)]*)\)", r"\1", match[1])
                return None
        if match := re.search(r"^Epoch time: (\S+) s", text):
            return (
                f"epoch {int(state['epoch']) + 1:>2} of {epochs}   loss {state['train']:>8} train, "
                f"{state['validation']:>8} validation   pseudo Dice {state['dice']:>7}   {match[1]} s"
            )
        wanted = r"^\[topo\]|^predicting |^Mean Validation Dice|Training done"
        return text if re.search(wanted, text) else None

    return show


def _lines_and_ticks(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """Lines as they come (each state of a progress bar is one), and None after every second without any."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=1.0)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield line


def _program(name: str) -> str:
    if name == sys.executable:
        return name
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise StepFailed(f"{name}: expected it beside {sys.executable}, found nothing. `make demo` installs it.")
    return found


def _shown(word: str) -> str:
    """A word of a command line, with folders shown as the user would type them."""
    if word == sys.executable or Path(word).parent == Path(sys.executable).parent:
        return Path(word).name
    with suppress(ValueError):
        return str(Path(word).relative_to(Path.cwd()))
    return word
