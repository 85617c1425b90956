"""`nnunet-topo compare`: is one result better than another, or is that noise?"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_topo.evaluation.compare import Comparison, MetricDifference


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the main parser."""
    parser = subparsers.add_parser(
        "compare",
        help="compare results case by case, with a bootstrap interval",
        description="Pairs the cases of results with those of the first, the baseline: mean difference of each metric, "
        "95 % bootstrap interval over the cases, cases won, lost and tied. Says so when a difference is inside the "
        "noise, and when the results do not hold the same cases.",
    )
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULT",
        help="summary.json or summary_topo.json, or a folder that holds one; the first is the baseline",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="metrics to compare (default: all that both hold and that can be better or worse)",
    )
    parser.add_argument("--per-label", action="store_true", help="a row for each label besides the foreground's mean")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare each result with the first one."""
    from nnunet_topo.errors import ConfigError
    from nnunet_topo.evaluation.compare import compare_summaries
    from nnunet_topo.training.journal import json_legal

    baseline, *others = arguments.results
    if not others:
        raise ConfigError(f"compare: expected at least two results, got one. {baseline}. Name the other one, too.")
    comparisons = [
        compare_summaries(baseline, other, metrics=arguments.metrics, per_label=arguments.per_label) for other in others
    ]
    if arguments.json:
        report = {
            "baseline": comparisons[0].baseline,
            "comparisons": [
                {key: value for key, value in asdict(comparison).items() if key != "baseline"}
                for comparison in comparisons
            ],
        }
        print(json.dumps(json_legal(report), indent=2))
        return 0
    print(f"baseline: {comparisons[0].baseline}")
    for comparison in comparisons:
        _print(comparison)
    return 0


def _print(comparison: Comparison) -> None:
    print(f"\n{comparison.result} ({len(comparison.cases)} cases)")
    rows = [_row(difference) for difference in comparison.differences]
    header = ("metric", "baseline", "result", "difference", "95 % interval", "won/lost/tied", "verdict")
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        cells = [text.rjust(width) for text, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *cells[1:-1], row[-1]]))
    for warning in comparison.warnings:
        print(f"warning: {warning}")


def _row(difference: MetricDifference) -> tuple[str, ...]:
    from nnunet_topo.evaluation.compare import FOREGROUND

    label = "" if difference.label == FOREGROUND else f" {difference.label}"
    interval = difference.interval
    return (
        difference.metric + label,
        f"{difference.baseline:.4g}",
        f"{difference.result:.4g}",
        f"{difference.difference:+.4g}",
        f"{interval[0]:+.4g} .. {interval[1]:+.4g}" if interval else "-",
        "-" if difference.wins is None else f"{difference.wins}/{difference.losses}/{difference.ties}",
        difference.verdict,
    )
