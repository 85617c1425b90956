"""What the start-up file costs and cannot break, on every Python found here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REGISTRATION = Path(__file__).resolve().parents[2] / "registration"
BOOT = "_nnunet_topo_boot"
STANDARD = set(sys.stdlib_module_names)


def interpreters() -> dict[str, str]:
    """Executable of each supported Python on this machine, the running one included."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    versions = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))
    candidates = [shutil.which(f"python3.{minor}") for minor in range(10, 15)] + [str(path) for path in versions]
    for candidate in filter(None, candidates):
        ask = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(ask, capture_output=True, text=True, check=False)
        major, _, minor = answer.stdout.strip().partition(".")
        if answer.returncode == 0 and major == "3" and int(minor) >= 10:
            found.setdefault(answer.stdout.strip(), candidate)
    return found


INTERPRETERS = interpreters()


@pytest.fixture(scope="module", params=list(INTERPRETERS))
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Executable of an empty environment with nothing but the start-up files in it."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([INTERPRETERS[request.param], "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for file in REGISTRATION.iterdir():
        if file.is_file():
            shutil.copy(file, site)
    return folder / "bin" / "python"


def start(python: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "NNUNET_"))}
    return subprocess.run(
        [str(python), *arguments], env={**kept, **variables}, capture_output=True, text=True, timeout=60, check=False
    )


def imported(python: Path) -> list[str]:
    """Modules in the order in which a start imports them, as `-X importtime` tells."""
    lines = start(python, "-X", "importtime", "-c", "pass").stderr.splitlines()
    return [line.split("|")[-1].strip() for line in lines if line.startswith("import time:") and "[us]" not in line]


def test_it_runs_and_says_nothing(bare: Path) -> None:
    code = f"import sys, json; print(json.dumps([type(f).__name__ for f in sys.meta_path] + ['{BOOT}' in sys.modules]))"
    run = start(bare, "-c", code)
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout).count("_HostFinder") == 1
    assert json.loads(run.stdout)[-1] is True


def test_it_imports_only_the_standard_library(bare: Path) -> None:
    with_it = imported(bare)
    (path_file,) = bare.parents[1].glob("lib/python*/site-packages/nnunet_topo.pth")
    line = path_file.read_text()
    path_file.write_text("# reading any such file costs some Pythons an import\n")
    try:
        without_it = imported(bare)
    finally:
        path_file.write_text(line)
    assert BOOT in with_it
    assert BOOT not in without_it
    added = set(with_it) - set(without_it) - {BOOT}
    assert {name.split(".")[0] for name in added} <= STANDARD
    # Stronger than promised, and what keeps the cost at a fraction of a millisecond.
    assert added == set()


@pytest.mark.parametrize("options", [(), ("-I",), ("-E", "-s"), ("-W", "error"), ("-O", "-O"), ("-bb",)])
def test_it_is_clean_under_the_interpreter_s_options(bare: Path, options: tuple[str, ...]) -> None:
    run = start(bare, *options, "-c", f"import sys; print('{BOOT}' in sys.modules)")
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "True", "")


def test_opt_out_leaves_the_import_system_alone(bare: Path) -> None:
    code = "import sys; print([type(f).__name__ for f in sys.meta_path].count('_HostFinder'))"
    assert start(bare, "-c", code, NNUNET_TOPO_DISABLE_AUTOREGISTER="1").stdout.strip() == "0"
    assert start(bare, "-c", code).stdout.strip() == "1"


def test_nnunet_that_is_not_installed_stays_an_ordinary_import_error(bare: Path) -> None:
    run = start(bare, "-c", "import nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    assert run.stderr.strip().splitlines()[-1] == "ModuleNotFoundError: No module named 'nnunetv2'"
    assert BOOT not in run.stderr
