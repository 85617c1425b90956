"""The parts of a report with numbers of cases: scores, foreground, comparison."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from nnunet_topo.evaluation.compare import MetricDifference
from nnunet_topo.evaluation.report_cases import label_name
from nnunet_topo.evaluation.report_charts import scatter_chart
from nnunet_topo.evaluation.report_html import cell, significant, table
from nnunet_topo.evaluation.report_scores import Row, mean_of, shown_metrics
from nnunet_topo.metrics.registry import METRICS


def cases_table(rows: Sequence[Row], dataset_json: Mapping[str, Any]) -> str:
    """Every case with its scores, in the order of the rows."""
    names = shown_metrics(rows)
    if not rows:
        return "<p>No scores: this training was not validated, or its files are not here.</p>"
    labels = {row.label for row in rows}
    several = len({row.predictions.name for row in rows}) > 1
    body = [
        [
            cell(row.case),
            *([cell(row.predictions.name)] if several else []),
            *([cell(label_name(row.label, dataset_json))] if len(labels) > 1 else []),
            *(cell(row.values.get(name, math.nan)) for name in names),
        ]
        for row in rows
    ]
    headings = ["case", *(["fold"] if several else []), *(["label"] if len(labels) > 1 else [])]
    mean = [cell("mean"), *[cell("")] * (len(headings) - 1), *(cell(mean_of(rows, name)) for name in names)]
    arrows = {True: " ↑", False: " ↓", None: ""}
    titles = [METRICS[name].key.replace("_", " ") + arrows[METRICS[name].higher_is_better] for name in names]
    meanings = "".join(
        f"<li><b>{METRICS[name].key.replace('_', ' ')}</b>: {html.escape(METRICS[name].description)}"
        f"{f', in {METRICS[name].unit}' if METRICS[name].unit else ''}</li>"
        for name in names
    )
    return (
        "<p>↑ more is better, ↓ less is better. Worst first: by the leaderboard score where there is one, then by the "
        "errors of the Betti numbers, then by Dice. A click on a heading sorts by it.</p>"
        + table([*headings, *titles], body, mean=mean, sortable=True)
        + f"<details><summary>What the columns mean</summary><ul>{meanings}</ul></details>"
    )


def foreground_ratio(rows: Sequence[Row]) -> float:
    """Median over the rows of predicted to labelled foreground, NaN without any."""
    ratios = [predicted / labelled for predicted, labelled in (row.foreground or (0, 0) for row in rows) if labelled]
    return median(ratios) if ratios else math.nan


def foreground_section(rows: Sequence[Row]) -> str:
    """Predicted against labelled foreground, case by case."""
    pairs = [(row, row.foreground) for row in rows]
    points = [(both[1], both[0], row.case) for row, both in pairs if both is not None]
    if not points:
        return ""
    ratio = foreground_ratio(rows)
    words = (
        "A network that fills everything and one that gives up both look fine in some losses; here they do not. "
        f"In the median case the prediction has {ratio:.2f} times the labelled foreground."
    )
    chart = scatter_chart(
        "Foreground by case", "up: predicted, right: labelled; on the dashed line both are equal", points
    )
    return f'<p>{words}</p><div class="charts">{chart}</div>'


def comparison_table(found: Sequence[MetricDifference], this: str, other: str) -> str:
    """Every metric of two runs."""
    rows = []
    for item in found:
        interval = " to ".join(significant(end) for end in item.interval) if item.interval else "too few cases"
        rows.append(
            [
                cell(METRICS[item.metric].key.replace("_", " ") + (" ↑" if item.higher_is_better else " ↓")),
                cell(item.result),
                cell(item.baseline),
                cell(f"{item.difference:+.3g}", item.difference),
                cell(interval),
                cell(f"{item.wins} / {item.losses} / {item.ties}"),
                cell(item.verdict),
            ]
        )
    headings = ("metric", "this run", "the other", "difference", "95 % interval", "won / lost / tied", "verdict")
    return (
        f"<p>This run is {html.escape(this)}, the other {html.escape(other)}; {found[0].cases} cases paired. "
        "The interval is a bootstrap over the cases: it knows nothing of the spread between two trainings of one and "
        f"the same setting.</p>{table(headings, rows)}"
    )
