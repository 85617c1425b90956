"""The harness itself: a step that goes wrong must not be reported as ok."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from stock_harness import Bench, StepFailed
from stock_training import Model, check_journal

REFUSAL = "import sys; sys.stderr.write('error: lr: expected > 0, got -1. a.yaml.\\n'); sys.exit(1)"
TRACEBACK = "print('error: x'); raise ValueError('x')"
SILENT_EXIT = "import sys; sys.exit(3)"
TWICE = "import sys; print('error: one'); print('error: two'); sys.exit(1)"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, quiet=True)


def test_failing_command_fails_the_step_and_shows_its_tail(bench: Bench) -> None:
    with pytest.raises(StepFailed, match=r"(?s)exit status 1.*ValueError: x"):
        bench.run("d", "s", sys.executable, "-c", TRACEBACK)
    assert [row.ok for row in bench.rows] == [False]


def test_output_without_the_expected_text_fails_the_step(bench: Bench) -> None:
    with pytest.raises(StepFailed, match="lacks 'done'"):
        bench.run("d", "s", sys.executable, "-c", "print('nothing')", says="done")


def test_refusal_in_one_line_is_ok(bench: Bench) -> None:
    bench.run("d", "s", sys.executable, "-c", REFUSAL, refused=("lr", "-1", "a.yaml"))
    assert [row.ok for row in bench.rows] == [True]


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("print('error: lr')", "exit status 0"),
        (TRACEBACK, "traceback"),
        (SILENT_EXIT, "got 0"),
        (TWICE, "got 2"),
        (REFUSAL, "lacks"),
    ],
)
def test_other_refusals_fail_the_step(bench: Bench, program: str, problem: str) -> None:
    with pytest.raises(StepFailed, match=problem):
        bench.run("d", "s", sys.executable, "-c", program, refused=("b.yaml",))


def test_command_that_ends_before_it_is_killed_fails_the_step(bench: Bench) -> None:
    with pytest.raises(StepFailed, match="ended by itself with status 3"):
        bench.run_until("d", "s", sys.executable, "-c", SILENT_EXIT, reached=lambda: False)


def test_missing_journal_fails_the_check(bench: Bench) -> None:
    model = Model("Dataset999_X", "3d_fullres", "p", "t")
    with pytest.raises(StepFailed, match="epochs in the journal"):
        check_journal(bench, model, 0)


def test_recorded_commands_hold_no_paths_of_this_machine(bench: Bench) -> None:
    bench.run("d", "s", sys.executable, "-c", "pass", bench.raw)
    assert bench.rows[0].command == "python -c pass WORK/nnUNet_raw"
