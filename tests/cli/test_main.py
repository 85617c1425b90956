"""The command as a whole: what reaches the shell."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

import pytest

import nnunet_topo
from nnunet_topo.cli import __main__ as command
from nnunet_topo.errors import ConfigError

NAMES = ["plan", "recipe", "check", "evaluate", "compare", "find-best", "balance", "report", "synth", "doctor"]


@pytest.fixture
def subcommand(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], int]], None]:
    """Puts one subcommand, `act`, in the place of all."""

    def install(run: Callable[[argparse.Namespace], int]) -> None:
        class Module:
            @staticmethod
            def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
                subparsers.add_parser("act").set_defaults(run=run)

        monkeypatch.setattr(command, "SUBCOMMANDS", (Module,))

    return install


def run_python(code: str, stdout: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command.main(["--version"])
    assert capsys.readouterr().out == f"nnunet-topo {nnunet_topo.__version__}\n"


def test_help_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"\n    {name}" in shown for name in NAMES)
    assert "Exit status: 0; 1 after an error" in " ".join(shown.split())


@pytest.mark.parametrize("name", NAMES)
def test_every_subcommand_has_a_description_and_shows_no_escapes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command.main([name, "--help"])
    usage, description, *_ = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"usage: nnunet-topo {name}")
    assert description[0].isupper()
    assert "%" not in description.replace("95 %", "")


def test_help_needs_neither_torch_nor_nnunet() -> None:
    code = (
        "import sys\nfrom nnunet_topo.cli.__main__ import build_parser\nbuild_parser().format_help()\n"
        "print([name for name in ('torch', 'nnunetv2', 'scipy', 'matplotlib') if name in sys.modules])"
    )
    assert run_python(code).stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["doctor", "--nothing"]])
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    assert "usage: nnunet-topo" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "status"), [(0, 0), (None, 0), (1, 1), (3, 3)])
def test_status_of_the_subcommand(subcommand: Callable, given: int, status: int) -> None:
    subcommand(lambda arguments: given)
    assert command.main(["act"]) == status


def test_an_error_of_ours_is_one_line_without_traceback(
    subcommand: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: argparse.Namespace) -> int:
        raise ConfigError("epochs: expected an integer >= 1, got 0. r.yaml. Set it.")

    subcommand(fail)
    assert command.main(["act"]) == 1
    assert capsys.readouterr().err == "error: epochs: expected an integer >= 1, got 0. r.yaml. Set it.\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(13, "Permission denied", "/data/plans.json"),
            "got Permission denied. /data/plans.json. Check",
        ),
        (OSError(28, "No space left on device"), "got No space left on device. Check"),
    ],
)
def test_what_the_file_system_refuses_is_one_line(
    error: OSError, said: str, subcommand: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: argparse.Namespace) -> int:
        raise error

    subcommand(fail)
    assert command.main(["act"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: file: expected")
    assert said in line


def test_an_error_that_is_not_ours_keeps_its_traceback(subcommand: Callable) -> None:
    subcommand(lambda arguments: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        command.main(["act"])


def test_ctrl_c(subcommand: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(arguments: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    subcommand(interrupt)
    assert command.main(["act"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("lines", [1, 100_000])
def test_reader_of_the_pipe_that_goes_away(lines: int) -> None:
    code = (
        "import sys, types\nfrom nnunet_topo.cli import __main__ as command\n"
        "def add_parser(subparsers):\n"
        f"    subparsers.add_parser('act').set_defaults(run=lambda _: [print('line') for _ in range({lines})] and 0)\n"
        "command.SUBCOMMANDS = (types.SimpleNamespace(add_parser=add_parser),)\n"
        "sys.stdin.read()\nsys.exit(command.main(['act']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    # The reader is gone before the first line is written.
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 141
