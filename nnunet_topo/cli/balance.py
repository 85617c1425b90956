"""`nnunet-topo balance`: is the amount of predicted foreground right?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_topo.cli.arguments import add_processes, require_processes

if TYPE_CHECKING:
    from nnunet_topo.evaluation.balance import Balance

SHOWN_CASES = 15


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the main parser."""
    parser = subparsers.add_parser(
        "balance",
        help="compare the amount of predicted foreground with the labels",
        description="Share of foreground in every case, predicted against labelled, without ignored voxels; a "
        "histogram; and what is wrong by name: nearly all foreground, empty, or uniform predictions. Exit status 1 "
        "when a case cannot be read.",
    )
    parser.add_argument("ground_truth", metavar="GT_DIR", help="folder of reference segmentations")
    parser.add_argument(
        "predictions", nargs="+", metavar="PRED_DIR", help="folders of predictions, one for each checkpoint, say"
    )
    parser.add_argument(
        "-o", dest="output", metavar="OUT", help="folder for balance.json and balance.png (default: neither is written)"
    )
    parser.add_argument(
        "--label", type=int, metavar="N", help="value of the label to look at alone (default: all foreground together)"
    )
    parser.add_argument(
        "--dataset-json",
        metavar="FILE",
        help="says what the labels are (default: in the folders or in those above them)",
    )
    parser.add_argument(
        "--ignore-label",
        type=int,
        metavar="N",
        help="value of unlabelled voxels, where there is no dataset.json (default: none)",
    )
    parser.add_argument(
        "--select",
        action="store_true",
        help="name the folder that is balanced best, on the last line: the smallest median absolute log ratio of "
        "predicted to labelled foreground, among those without a failure in half of their cases",
    )
    add_processes(parser, 2)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write, and choose."""
    from nnunet_topo.data.raw import make_folder, require_writable, write_json
    from nnunet_topo.errors import DataError
    from nnunet_topo.evaluation.balance import measure_balance, select_balanced
    from nnunet_topo.training.journal import json_legal

    require_processes(arguments)
    if arguments.output:
        require_writable(Path(arguments.output))
    balances = [
        measure_balance(
            arguments.ground_truth,
            folder,
            dataset_json=arguments.dataset_json,
            label=arguments.label,
            ignore_label=arguments.ignore_label,
            processes=arguments.processes,
        )
        for folder in arguments.predictions
    ]
    nothing_selected = ""
    selected = None
    if arguments.select:
        try:
            selected = select_balanced(balances)
        except DataError as error:
            # After the tables, which show why.
            nothing_selected = str(error)
    report = json_legal(
        {
            "ground_truth": arguments.ground_truth,
            "predictions": [_as_mapping(balance) for balance in balances],
            "selected": None if selected is None else selected.folder,
        }
    )
    if arguments.output:
        from nnunet_topo.evaluation.balance_figure import draw_balance

        folder = make_folder(Path(arguments.output))
        write_json(folder / "balance.json", report)
        draw_balance(balances, folder / "balance.png")
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        for balance in balances:
            _print(balance)
        if arguments.output:
            print(f"wrote balance.json and balance.png to {arguments.output}")
        if selected is not None:
            print(f"selected: {selected.folder}")
    if nothing_selected:
        raise DataError(nothing_selected)
    return int(any(balance.problems for balance in balances))


def _as_mapping(balance: Balance) -> dict[str, Any]:
    return {
        "folder": balance.folder,
        "median_ratio": balance.median_ratio,
        "median_abs_log_ratio": balance.imbalance,
        "labelled_spread": balance.labelled_spread,
        "predicted_spread": balance.predicted_spread,
        "findings": [
            {"name": finding.name, "cases": finding.cases, "message": finding.message} for finding in balance.findings
        ],
        "cases": [
            {
                "case": case.case,
                "voxels": case.voxels,
                "labelled": case.labelled_share,
                "predicted": case.predicted_share,
                "ratio": case.ratio,
            }
            for case in balance.cases
        ],
        "problems": [{"case": case, "message": message} for case, message in balance.problems.items()],
    }


def _print(balance: Balance) -> None:
    from statistics import median

    from nnunet_topo.evaluation.balance_figure import text_histogram

    print(f"{balance.folder} ({len(balance.cases)} cases)")
    width = max(len("spread (standard deviation)"), *(len(case.case) for case in balance.cases))
    print(f"{'':<{width}}  {'labelled':>9}  {'predicted':>9}  {'ratio':>8}")
    worst_first = sorted(balance.cases, key=lambda case: -abs(case.log_ratio))
    for case in worst_first[:SHOWN_CASES]:
        print(f"{case.case:<{width}}  {case.labelled_share:>9.3%}  {case.predicted_share:>9.3%}  {case.ratio:>8.3g}")
    if len(worst_first) > SHOWN_CASES:
        print(f"... and {len(worst_first) - SHOWN_CASES} cases nearer to balance (-o or --json lists all)")
    shares = (
        median(case.labelled_share for case in balance.cases),
        median(case.predicted_share for case in balance.cases),
    )
    print(f"{'median':<{width}}  {shares[0]:>9.3%}  {shares[1]:>9.3%}  {balance.median_ratio:>8.3g}")
    spreads = (balance.labelled_spread, balance.predicted_spread)
    print(f"{'spread (standard deviation)':<{width}}  {spreads[0]:>9.3%}  {spreads[1]:>9.3%}\n")
    print("\n".join(text_histogram(balance.cases)))
    findings = balance.findings
    for finding in findings:
        print(f"\n{finding.name}: {finding.message}")
    if not findings:
        print("\nno failure: neither nearly all foreground, nor empty, nor uniform")
    for name, message in balance.problems.items():
        print(f"error: {name}: {message}", file=sys.stderr)
    print()
