"""`nnunet-topo doctor`: what is installed, what resolves, and how to mend what does not."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_topo.training.diagnosis import Finding

COLOURS = {"ok": "32", "warn": "33", "fail": "31"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this subcommand."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what is installed, what resolves, and how to mend what does not",
        description="Looks at versions, trainers, paths, image codecs and devices. Exit status 1 if something will "
        "fail; a warning alone does not change it.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the findings.

    Returns:
        1 if one of them is a failure, else 0.
    """
    from nnunet_topo.training.diagnosis import diagnose

    findings = diagnose()
    failed = [finding for finding in findings if finding.status == "fail"]
    if arguments.json:
        print(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        in_colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print(table(findings, in_colour=in_colour))
    return 1 if failed else 0


def table(findings: Sequence[Finding], *, in_colour: bool) -> str:
    """The findings as text: status, name, value, and the mend on a line of its own."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        status = f"{finding.status:4}"
        if in_colour:
            status = f"\033[{COLOURS[finding.status]}m{status}\033[0m"
        lines.append(f"{status}  {finding.name:{width}}  {finding.value}")
        if finding.mend:
            lines.append(f"{'':{width + 8}}-> {finding.mend}")
    counts = [f"{sum(finding.status == status for finding in findings)} {status}" for status in ("ok", "warn", "fail")]
    return "\n".join([*lines, "", ", ".join(counts)])
