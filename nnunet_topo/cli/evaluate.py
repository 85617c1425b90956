"""`nnunet-topo evaluate`: the scores of a folder of predictions, topology included."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_topo.cli.arguments import add_processes, require_processes

if TYPE_CHECKING:
    from nnunet_topo.evaluation.evaluate import Evaluation

SUMMARY_NAME = "summary_topo"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score a folder of predictions",
        description="Scores every case and writes JSON in the shape of nnU-Net's summary.json, and a table as CSV. A "
        "case that cannot be scored is reported and does not stop the others; the exit status is then 1, and without "
        "-o complete scores that lie there are kept. Labels, regions and the ignore label are those of dataset.json; "
        "without one, all values that the ground truth holds.",
    )
    parser.add_argument("ground_truth", metavar="GT_DIR", help="folder of ground truth segmentations")
    parser.add_argument("predictions", metavar="PRED_DIR", help="folder of predictions with the same file names")
    parser.add_argument(
        "-o", "--output", metavar="OUT", help=f"a folder, or a file *.json (default: PRED_DIR/{SUMMARY_NAME}.json)"
    )
    parser.add_argument(
        "--metrics", nargs="+", metavar="NAME", help="names of metrics (default: a common set; docs/metrics.md)"
    )
    parser.add_argument("--preset", metavar="NAME", help="a set of metrics: vesuvius, vessel or volumetric")
    parser.add_argument(
        "--dataset-json",
        metavar="FILE",
        help="says what the labels are (default: beside the predictions or the ground truth, or above them)",
    )
    parser.add_argument(
        "--ignore-label",
        type=int,
        metavar="VALUE",
        help="value of unlabelled voxels, where there is no dataset.json (default: none)",
    )
    parser.add_argument(
        "--tolerance", type=float, metavar="MM", help="tolerance of the surface Dice in mm (default: 2)"
    )
    parser.add_argument(
        "--connectivity",
        type=int,
        choices=(26, 6, 8, 4),
        help="neighbours of a voxel of the foreground (default: 26, in 2-D 8)",
    )
    parser.add_argument("--chill", action="store_true", help="cases without a prediction are fine")
    add_processes(parser, min(4, os.cpu_count() or 1))
    parser.add_argument("--json", action="store_true", help="print what is written as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Score, write, print, and return the exit status."""
    from nnunet_topo.data.raw import require_writable
    from nnunet_topo.errors import DataError
    from nnunet_topo.evaluation.evaluate import evaluate_folders, write_evaluation
    from nnunet_topo.metrics.scores import TOLERANCE_MM

    require_processes(arguments)
    output = Path(arguments.output or arguments.predictions)
    path = output if output.suffix == ".json" else output / f"{SUMMARY_NAME}.json"
    if arguments.output or output.is_dir():
        require_writable(path.parent)
    evaluation = evaluate_folders(
        arguments.ground_truth,
        arguments.predictions,
        dataset_json=arguments.dataset_json,
        metrics=arguments.metrics,
        preset=arguments.preset,
        processes=arguments.processes,
        tolerance_mm=TOLERANCE_MM if arguments.tolerance is None else arguments.tolerance,
        connectivity=arguments.connectivity,
        ignore_label=arguments.ignore_label,
        chill=arguments.chill,
    )
    for warning in evaluation.warnings:
        print(f"warning: {warning.case}: {warning.message}", file=sys.stderr)
    for problem in evaluation.problems:
        print(f"error: {problem.case}: {problem.message}", file=sys.stderr)
    if not evaluation.summary["metric_per_case"]:
        raise DataError(f"cases: expected at least one that can be scored, got none. {path} was not written.")
    kept = arguments.output is None and bool(evaluation.problems) and _is_complete(path)
    if arguments.json:
        print(json.dumps(evaluation.summary, indent=4, sort_keys=True))
    else:
        _print(evaluation)
    if kept:
        raise DataError(
            f"{path.name}: expected every case to be scored before complete scores are replaced, got "
            f"{len(evaluation.problems)} that were not. {path} was left as it is. Where the predictions are of some of "
            "the cases only, such as one fold's, add --chill; or write elsewhere with -o."
        )
    table = write_evaluation(evaluation, path)
    if not arguments.json:
        print(f"wrote {path}\nwrote {table}")
    return int(bool(evaluation.problems))


def _is_complete(path: Path) -> bool:
    """Whether scores of every case lie there already."""
    from nnunet_topo.data.raw import read_object
    from nnunet_topo.errors import DataError

    try:
        summary = read_object(path)
    except DataError:
        return False
    return bool(summary.get("metric_per_case")) and not summary.get("errors")


def _print(evaluation: Evaluation) -> None:
    from nnunet_topo.metrics.registry import METRICS, NNUNET_METRICS

    summary = evaluation.summary
    mean, spread, settings = summary["mean"], summary["sd"], summary["settings"]
    scored = len(summary["metric_per_case"])
    labels = list(mean)
    rows = [["metric", *(f"label {label}" for label in labels), *(["mean"] if len(labels) > 1 else [])]]
    for name in settings["metrics"]:
        metric = METRICS[name]
        if name in NNUNET_METRICS[2:]:
            continue
        title = f"{metric.key} ({metric.unit})" if metric.unit else metric.key
        row = [title, *(_with_spread(mean[label][metric.key], spread[label][metric.key]) for label in labels)]
        rows.append([*row, *([f"{summary['foreground_mean'][metric.key]:.4g}"] if len(labels) > 1 else [])])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    ignored = "" if settings["ignore_label"] is None else f", label {settings['ignore_label']} ignored"
    print(f"\nmean ± standard deviation of {scored} cases, {len(evaluation.problems)} not scored.")
    print(f"labels from {settings['labels_from']}{ignored}")


def _with_spread(value: float, spread: float) -> str:
    return f"{value:.4g}" if math.isnan(spread) else f"{value:.4g} ± {spread:.2g}"
