"""Runs nnU-Net's and our commands as a user does, in sub-processes, and keeps a table of what happened."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

ROOTS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
# The commands lie beside the interpreter in a virtual environment, activated or not.
COMMANDS = Path(sys.executable).parent
LAUNCHER = Path(__file__).resolve().parents[2] / "demo" / "stock_short.py"
STEP_LIMIT_S = 1800.0
TAIL_LINES = 40


class StepFailed(Exception):
    """A step went wrong, so what builds on it cannot run."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    dataset: str
    step: str
    ok: bool
    duration_s: float
    command: str = ""
    note: str = ""


@dataclass
class Bench:
    """Scratch nnU-Net roots, the environment of every step, and the table.

    Attributes:
        work: scratch folder; logs go to `work/logs`.
        rows: what ran so far.
        quiet: say nothing while running (under pytest).
        hidden: folders that are shown by a name in the recorded commands.
    """

    work: Path
    quiet: bool = False
    rows: list[Row] = field(default_factory=list)
    hidden: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.work = self.work.resolve()
        self.hidden[str(self.work)] = "WORK"
        for name in ROOTS:
            (self.work / name).mkdir(parents=True, exist_ok=True)
        (self.work / "logs").mkdir(exist_ok=True)

    @property
    def raw(self) -> Path:
        return self.work / "nnUNet_raw"

    @property
    def preprocessed(self) -> Path:
        return self.work / "nnUNet_preprocessed"

    @property
    def results(self) -> Path:
        return self.work / "nnUNet_results"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The caller's environment with small, single-threaded settings and none of our variables but `extra`."""
        kept = {key: value for key, value in os.environ.items() if not key.upper().startswith("NNUNET")}
        return {
            **kept,
            **{name: str(self.work / name) for name in ROOTS},
            "nnUNet_compile": "f",
            "nnUNet_n_proc_DA": "1",
            "nnUNet_def_n_proc": "1",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            # nnU-Net takes a thread per core with -device cpu: on a busy machine they wait spinning, 50 times slower.
            "OMP_WAIT_POLICY": "PASSIVE",
            "MPLBACKEND": "Agg",
            "PYTHONUNBUFFERED": "1",
            **(extra or {}),
        }

    # ---------------------------------------------------------------------------------------------------- the table

    def record(
        self, dataset: str, step: str, ok: bool, duration_s: float, argv: Sequence[object] = (), note: str = ""
    ) -> None:
        """Add a line to the table."""
        row = Row(dataset, step, ok, round(duration_s, 1), self._shown(argv), self._hide(note))
        self.rows.append(row)
        if not self.quiet:
            shown_note = f"  {row.note}" if row.note else ""
            print(f"{row.dataset:<24} {row.step:<52} {'ok' if ok else 'FAILED':<6} {duration_s:7.1f} s{shown_note}")
            sys.stdout.flush()

    @contextmanager
    def check(self, dataset: str, step: str) -> Iterator[None]:
        """A line for something that is looked up in files, with no command of its own."""
        begin = monotonic()
        try:
            yield
        except (AssertionError, OSError, LookupError, ValueError) as error:
            self.record(dataset, step, False, monotonic() - begin, note=f"{type(error).__name__}: {error}")
            raise StepFailed(f"{dataset}, {step}: {error}") from error
        self.record(dataset, step, True, monotonic() - begin)

    def _hide(self, text: str) -> str:
        for path, name in self.hidden.items():
            text = text.replace(path, name)
        return text

    def _shown(self, argv: Sequence[object]) -> str:
        words = [str(word) for word in argv]
        if words and words[0] == sys.executable:
            words = ["python", Path(words[1]).name, *words[2:]]
        return self._hide(" ".join(Path(words[0]).name if not index else word for index, word in enumerate(words)))

    # -------------------------------------------------------------------------------------------------- the commands

    def run(
        self,
        dataset: str,
        step: str,
        *argv: object,
        env: Mapping[str, str] | None = None,
        refused: Sequence[str] | None = None,
        reports: Sequence[str] | None = None,
        says: str = "",
    ) -> str:
        """Run a command to its end.

        Args:
            dataset: first column of the table.
            step: second column.
            argv: the command's name, then its arguments.
            env: variables for this step only.
            refused: when given, the command has to refuse: exit with another status than 0, print one line that
                starts with `error:` and holds all of these texts, and no traceback.
            reports: when given, the command has to find fault: exit with another status than 0, all of these texts in
                its output, and no traceback.
            says: a text that its output has to hold.

        Returns:
            stdout and stderr together.

        Raises:
            StepFailed: it went otherwise than expected.
        """
        begin = monotonic()
        log = self._log(dataset, step)
        process = self._start(argv, env, log)
        try:
            status = process.wait(timeout=STEP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._kill(process)
            status = -signal.SIGKILL
        except BaseException:
            self._kill(process)
            raise
        output = log.read_text(encoding="utf-8", errors="replace")
        problem = _problem(status, output, refused, reports)
        if not problem and says not in output:
            problem = f"the output lacks {says!r}"
        self.record(dataset, step, not problem, monotonic() - begin, argv, problem)
        if problem:
            raise self._failure(dataset, step, log, output, problem)
        return output

    def run_until(
        self,
        dataset: str,
        step: str,
        *argv: object,
        reached: Callable[[], bool],
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start a command and kill -9 it, with all its children, as soon as `reached()`.

        Raises:
            StepFailed: it ended before that.
        """
        begin = monotonic()
        log = self._log(dataset, step)
        process = self._start(argv, env, log)
        try:
            while process.poll() is None and not reached() and monotonic() - begin < STEP_LIMIT_S:
                sleep(0.02)
            ended_itself = process.poll() is not None
        finally:
            self._kill(process)
        problem = f"ended by itself with status {process.returncode}" if ended_itself else ""
        self.record(dataset, step, not problem, monotonic() - begin, argv, problem)
        if problem:
            raise self._failure(dataset, step, log, log.read_text(encoding="utf-8", errors="replace"), problem)

    def _start(self, argv: Sequence[object], env: Mapping[str, str] | None, log: Path) -> subprocess.Popen[bytes]:
        program = str(argv[0])
        if program != sys.executable:
            found = shutil.which(program, path=str(COMMANDS))
            if found is None:
                raise StepFailed(f"{program}: expected it in {COMMANDS}. Install the package into this environment.")
            program = found
        with log.open("wb") as stream:
            return subprocess.Popen(
                [program, *(str(word) for word in argv[1:])],
                cwd=self.work,
                env=self.environment(env),
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        # The augmentation workers and export pools are in the same group: a killed parent would leave them behind.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _log(self, dataset: str, step: str) -> Path:
        name = "".join(letter if letter.isalnum() else "_" for letter in f"{len(self.rows):03d}_{dataset}_{step}")
        return self.work / "logs" / f"{name[:100]}.log"

    def _failure(self, dataset: str, step: str, log: Path, output: str, problem: str) -> StepFailed:
        tail = "\n".join(output.splitlines()[-TAIL_LINES:])
        return StepFailed(f"{dataset}, {step}: {problem}\n--- last {TAIL_LINES} lines of {log} ---\n{tail}\n---")


def _problem(status: int, output: str, refused: Sequence[str] | None, reports: Sequence[str] | None) -> str:
    """What is wrong with the end of a command, "" if nothing is."""
    if refused is None and reports is None:
        return "" if status == 0 else f"exit status {status}"
    if status == 0:
        return "expected it to refuse, got exit status 0"
    if "Traceback" in output:
        return "expected no traceback"
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    if refused is not None and len(errors) != 1:
        return f"expected one line 'error: ...', got {len(errors)}"
    missing = [text for text in refused if text not in errors[0]] if refused is not None else []
    missing += [text for text in reports or () if text not in output]
    return f"lacks {missing}: {errors[0] if errors else 'see the log'}" if missing else ""
