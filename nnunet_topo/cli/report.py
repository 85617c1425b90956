"""`nnunet-topo report`: one HTML page about a training and the errors of its predictions."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from nnunet_topo.cli.arguments import add_processes, require_processes


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "report",
        help="write one HTML page about a training",
        description="Writes one self-contained HTML page: what was trained, curves with phases and interventions, the "
        "balance of the loss terms, scores of every case, and pictures of the worst ones with their holes, bridges, "
        "missing and extra components marked. It loads nothing from a network.",
    )
    parser.add_argument(
        "results",
        metavar="RESULTS_DIR",
        type=Path,
        help="model folder (TRAINER__PLANS__CONFIGURATION), one fold_* in it, or with --ground-truth predictions",
    )
    parser.add_argument(
        "-o", dest="output", metavar="OUT.html", type=Path, help="file to write (default: report.html in RESULTS_DIR)"
    )
    parser.add_argument(
        "--against", metavar="OTHER_RESULTS_DIR", type=Path, help="another run on the same cases to compare with"
    )
    parser.add_argument(
        "--cases", metavar="N", type=int, default=3, help="worst cases in pictures (default: %(default)s)"
    )
    parser.add_argument(
        "--ground-truth", metavar="GT_DIR", type=Path, help="labels (default: where nnU-Net keeps the dataset's)"
    )
    add_processes(parser, 2)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the page, and say where it is and what it says first."""
    from nnunet_topo.data.raw import require_writable
    from nnunet_topo.errors import ConfigError
    from nnunet_topo.evaluation.report import write_report

    require_processes(arguments)
    if arguments.output is not None:
        if arguments.output.is_dir():
            raise ConfigError(
                f"-o: expected a file, got a folder. {arguments.output}. Add the file's name, report.html."
            )
        require_writable(arguments.output.parent)
    elif arguments.results.is_dir():
        require_writable(arguments.results)
    report = write_report(
        arguments.results,
        arguments.output,
        against=arguments.against,
        ground_truth=arguments.ground_truth,
        cases=arguments.cases,
        processes=arguments.processes,
    )
    if arguments.json:
        figures = [{"value": value, "meaning": meaning} for value, meaning in report.figures]
        found = {"file": str(report.file), "size_bytes": report.size_bytes, "figures": figures, "notes": report.notes}
        print(json.dumps(found, indent=2))
        return 0
    for value, meaning in report.figures:
        print(f"{value:>14}  {meaning}")
    for note in report.notes:
        print(f"note: {note}")
    print(f"wrote {report.file} ({report.size_bytes / 1e6:.1f} MB): open it in a browser")
    return 0
