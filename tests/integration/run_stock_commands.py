"""Runs nnU-Net's stock commands with our trainers from raw data to predictions, and prints a table.

    python tests/integration/run_stock_commands.py [--data DIR] [--only NAME ...] [--work DIR] [--json FILE]

Only command lines are used, as a user would type them, at a tiny configuration on the CPU. Exit status 1 if any step
fails; the log of every step stays in the work folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stock_bad_input import bad_input
from stock_datasets import REAL, read_json
from stock_harness import Bench, StepFailed
from stock_scenarios import cascade, real_dataset, regions, sharing
from stock_training import EPOCHS, ITERATIONS, VALIDATION_ITERATIONS

SYNTHETIC: dict[str, Callable[[Bench], None]] = {
    "regions": regions,
    "cascade": cascade,
    "sharing": sharing,
    "bad_input": bad_input,
}
PACKAGES = ("nnunet-topo", "nnunetv2", "torch", "numpy", "batchgeneratorsv2", "acvl-utils")


def main() -> int:
    """Run the chosen scenarios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=f"folder that holds any of {', '.join(spec.name for spec in REAL)}")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of {', '.join(SYNTHETIC)}, or real datasets")
    parser.add_argument("--cases", type=int, help="at most so many training cases of a real dataset (default: all)")
    parser.add_argument("--whole", action="store_true", help="whole real files instead of a block of each (longer)")
    parser.add_argument("--work", type=Path, help="empty scratch folder, kept (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="write or update a JSON table, and the .md made from it beside it")
    arguments = parser.parse_args()

    data = arguments.data.resolve() if arguments.data else None
    available = scenarios(data, limit=arguments.cases, whole=arguments.whole)
    unknown = sorted(set(arguments.only or ()) - set(available))
    if unknown:
        parser.error(f"--only: expected some of {', '.join(available)}, got {', '.join(unknown)}")
    work = arguments.work or Path(tempfile.mkdtemp(prefix="nnunet_topo_integration_"))
    if work.exists() and any(work.iterdir()):
        parser.error(f"--work: expected an empty folder, got {work}")
    bench = Bench(work, hidden={str(data): "DATA"} if data else {})

    flags = [f"--cases {arguments.cases}"] if arguments.cases else []
    flags += ["--whole"] if arguments.whole else []
    entries = {}
    for name in arguments.only or available:
        before = len(bench.rows)
        failure = ""
        try:
            available[name](bench)
        except StepFailed as problem:
            failure = str(problem)
            print(f"\n{failure}\n", file=sys.stderr)
        rows = [asdict(row) for row in bench.rows[before:]]
        given = [*flags, "--data DATA"] if name not in SYNTHETIC else []
        command = " ".join(["python tests/integration/run_stock_commands.py", "--only", name, *given])
        ok = not failure and all(row["ok"] for row in rows)
        entries[name] = {"command": command, "ok": ok, "versions": versions(), "rows": rows}
        if arguments.json:
            write(updated(arguments.json, {name: entries[name]}), arguments.json)
    print(f"\n{table(entries)}\nlogs: {bench.work / 'logs'}")
    return 0 if all(entry["ok"] for entry in entries.values()) else 1


def scenarios(data: Path | None, *, limit: int | None, whole: bool) -> dict[str, Callable[[Bench], None]]:
    """What can run here, by name: the synthetic chains, and the real datasets that are in `data`."""
    found = [spec for spec in REAL if data is not None and (data / spec.name / "dataset.json").is_file()]
    real = {spec.name: partial(real_dataset, spec=spec, data=data, limit=limit, whole=whole) for spec in found}
    return {**SYNTHETIC, **real}


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def updated(file: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """The report in a file, with some of its scenarios replaced by new ones."""
    old = read_json(file)["scenarios"] if file.is_file() else {}
    return {
        "settings": {
            "epochs": EPOCHS,
            "iterations_per_epoch": ITERATIONS,
            "validation_iterations": VALIDATION_ITERATIONS,
            "device": "cpu",
        },
        "machine": {"system": platform.system(), "architecture": platform.machine(), "cores": os.cpu_count()},
        "scenarios": {**old, **entries},
    }


def write(report: dict[str, Any], file: Path) -> None:
    """Write the report as JSON and as a Markdown page made from it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    file.with_suffix(".md").write_text(markdown(report), encoding="utf-8")


def table(entries: dict[str, Any]) -> str:
    """Plain-text table of all steps."""
    rows = [row for entry in entries.values() for row in entry["rows"]]
    widths = [max([len(row[key]) for row in rows] + [len(key)]) for key in ("dataset", "step")]
    lines = [f"{'dataset':<{widths[0]}}  {'step':<{widths[1]}}  result  seconds"]
    for row in rows:
        cells = f"{row['dataset']:<{widths[0]}}  {row['step']:<{widths[1]}}  {'ok' if row['ok'] else 'FAILED':<6}"
        lines.append(f"{cells}  {row['duration_s']:7.1f}")
    return "\n".join([*lines, totals(entries)])


def totals(entries: dict[str, Any]) -> str:
    """Number of steps and failures, and the time they took."""
    rows = [row for entry in entries.values() for row in entry["rows"]]
    failed = sum(not row["ok"] for row in rows)
    return f"{len(rows)} steps, {failed} failed, {sum(row['duration_s'] for row in rows) / 60:.0f} minutes"


def markdown(report: dict[str, Any]) -> str:
    """The same table as a Markdown page, made from the JSON alone."""
    settings, entries = report["settings"], report["scenarios"]
    lines = [
        "# Stock commands, end to end",
        "",
        f"Every training: {settings['epochs']} epochs of {settings['iterations_per_epoch']} steps on the CPU "
        f"({report['machine']['cores']} cores, busy with other work). It shows that the commands work together, not "
        "how good a model is, and the seconds compare nothing.",
        "",
        f"{totals(entries)}.",
    ]
    for name, entry in entries.items():
        numbers = ", ".join(f"{package} {number}" for package, number in entry["versions"].items())
        lines += ["", f"## {name}", "", f"`{entry['command']}`", "", f"{numbers}", ""]
        lines += ["| dataset | step | result | seconds |", "|---|---|---|---:|"]
        for row in entry["rows"]:
            result = "ok" if row["ok"] else f"FAILED {row['note']}"
            lines.append(f"| {row['dataset']} | {row['step']} | {result} | {row['duration_s']:.1f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
