"""`nnunet-topo check`: what is wrong with a dataset, file by file, before GPU time is spent on it."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from nnunet_topo.cli.arguments import add_processes, require_processes

if TYPE_CHECKING:
    from nnunet_topo.data.check import DatasetReport


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "check",
        help="check a raw and preprocessed dataset",
        description="Reads every case of a dataset and names each file that is wrong, with the mend: labels that "
        "dataset.json does not declare, a mis-declared ignore label, missing tif side-cars, missing or damaged files, "
        "cases without foreground. Exit status 1 when there is an error.",
    )
    parser.add_argument("-d", "--dataset", required=True, metavar="ID", help="dataset id or name")
    parser.add_argument(
        "-c",
        "--configuration",
        nargs="+",
        metavar="CONFIG",
        help="configurations (default: all that were preprocessed)",
    )
    parser.add_argument(
        "-p", "--plans", metavar="PLANS", help="name of the plans, as in nnUNetPlans (default: all of the dataset)"
    )
    parser.add_argument("--raw-only", action="store_true", help="leave the preprocessed data out")
    parser.add_argument("--allow-empty", action="store_true", help="cases without foreground are only warnings")
    parser.add_argument("--strict", action="store_true", help="exit with status 1 on warnings, too")
    add_processes(parser, min(4, os.cpu_count() or 1))
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check, print, and return the exit status."""
    from pathlib import Path

    from nnunet_topo.data.check import check_dataset
    from nnunet_topo.errors import ConfigError

    folders = {name: os.environ.get(name) for name in ("nnUNet_raw", "nnUNet_preprocessed")}
    require_processes(arguments)
    if arguments.raw_only:
        folders["nnUNet_preprocessed"] = None
        if arguments.configuration:
            raise ConfigError("-c: expected no configuration together with --raw-only. Leave one of them out.")
    raw, preprocessed = (Path(folder) if folder else None for folder in folders.values())
    report = check_dataset(
        arguments.dataset,
        raw=raw,
        preprocessed=preprocessed,
        configurations=arguments.configuration,
        plans_name=arguments.plans,
        empty_allowed=arguments.allow_empty,
        processes=arguments.processes,
    )
    if arguments.json:
        print(json.dumps({**asdict(report), "errors": report.errors}, indent=2))
    else:
        _print(report)
    return int(report.errors > 0 or (arguments.strict and bool(report.findings)))


def _print(report: DatasetReport) -> None:
    for finding in report.findings:
        print(f"{finding.severity}: {finding.file}\n    {finding.message}\n    -> {finding.mend}")
    counts = Counter((finding.check, finding.severity) for finding in report.findings)
    if counts:
        print(f"\n{'check':<22} {'errors':>6} {'warnings':>8}")
        for check in sorted({check for check, _ in counts}):
            print(f"{check:<22} {counts[check, 'error']:>6} {counts[check, 'warning']:>8}")
    warnings = len(report.findings) - report.errors
    looked = " and preprocessed data" if report.preprocessed else ""
    print(
        f"{report.dataset}: {report.training_cases} training and {report.test_cases} test cases{looked} checked, "
        f"{report.errors} errors, {warnings} warnings."
    )
