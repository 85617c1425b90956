"""What the start-up file adds to every start of Python, in milliseconds of processor time.

    python benchmarks/startup_time.py --pairs 200 --output benchmarks/results/startup_time.json

Two empty environments that differ in nothing but the start-up files start in turns, so a machine whose speed drifts
slows both alike. Processor time, because one process that waits for nothing spends its time there, and because other
work on the machine hardly changes it. The figure is the median over the pairs of the difference; beside it stand its
quartiles, and the difference of two environments that are both without the files, which is what the method itself is
worth. The start-up module is compiled beforehand, as pip does when it installs one; "uncompiled" is its cost where no
byte code is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import py_compile
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

REGISTRATION = Path(__file__).resolve().parents[1] / "registration"


def make_environment(folder: Path, *, registered: bool, compiled: bool = True) -> Path:
    """An environment without packages, with or without the start-up files. Gives its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for file in REGISTRATION.iterdir() if registered else ():
        if file.is_file():
            copy = shutil.copy(file, site)
            if compiled and file.suffix == ".py":
                py_compile.compile(copy, doraise=True)
    return folder / "bin" / "python"


def start_ms(python: Path) -> float:
    """Processor time, user and system, of one start that does nothing."""
    process = subprocess.Popen([python, "-B", "-c", "pass"])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return (usage.ru_utime + usage.ru_stime) * 1000


def differences_ms(first: Path, second: Path, pairs: int) -> list[float]:
    """By how much the second start of each pair took longer; the order within a pair alternates."""
    found = []
    for pair in range(pairs):
        order = (first, second) if pair % 2 == 0 else (second, first)
        times = {python: start_ms(python) for python in order}
        found.append(times[second] - times[first])
    return found


def summary(values: list[float]) -> dict[str, float]:
    """Quartiles, rounded to a microsecond."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": round(median, 3), "lower_quartile": round(low, 3), "upper_quartile": round(high, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, help="number of paired starts (default: 200)")
    parser.add_argument("--output", type=Path, help="JSON file for the result; printed in any case")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        without = make_environment(folder / "without", registered=False)
        compared = {
            "added_by_the_start_up_file_ms": make_environment(folder / "registered", registered=True),
            "added_by_it_uncompiled_ms": make_environment(folder / "uncompiled", registered=True, compiled=False),
            "added_by_nothing_ms": make_environment(folder / "control", registered=False),
        }
        for python in (without, *compared.values()):
            start_ms(python)  # the first start reads the files from the disk
        result = {
            "command": " ".join(["python", "benchmarks/startup_time.py", *sys.argv[1:]]),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "pairs": arguments.pairs,
            "bare_start_ms": summary([start_ms(without) for _ in range(arguments.pairs)]),
            **{name: summary(differences_ms(without, python, arguments.pairs)) for name, python in compared.items()},
        }
    text = json.dumps(result, indent=2) + "\n"
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
