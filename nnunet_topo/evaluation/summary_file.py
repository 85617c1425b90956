"""From the scores of cases to summary.json: means as nnU-Net takes them, spreads, and a table beside."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_topo.data.raw import make_folder
from nnunet_topo.errors import ConfigError
from nnunet_topo.evaluation.cases import Case
from nnunet_topo.evaluation.layout import LabelSystem
from nnunet_topo.evaluation.score_case import Settings
from nnunet_topo.evaluation.summaries import case_name
from nnunet_topo.metrics.registry import METRICS
from nnunet_topo.training.atomic import write_atomically

Values = Mapping[str, float]


def make_summary(scored: Sequence[tuple[Case, Mapping[str, Values]]], settings: Settings) -> dict[str, Any]:
    """Scores with their means and standard deviations.

    Means leave out cases where a metric is undefined (NaN); the foreground's mean is that of the labels' means, and
    undefined where one of them is. Both are nnU-Net's ways.

    Args:
        scored: cases in the order of their names, each with its value by structure and key.
        settings: what they were scored with.

    Returns:
        `metric_per_case`, `mean`, `foreground_mean` as in nnU-Net's summary.json, `sd` (of the cases, like `mean`;
        NaN with fewer than two) and `settings`.
    """
    keys = [METRICS[name].key for name in settings.metrics]
    mean: dict[str, dict[str, float]] = {}
    spread: dict[str, dict[str, float]] = {}
    for structure in map(str, settings.labels.structures):
        columns = {key: _defined([metrics[structure][key] for _, metrics in scored]) for key in keys}
        mean[structure] = {key: float(np.mean(column)) if len(column) else math.nan for key, column in columns.items()}
        spread[structure] = {
            key: float(np.std(column, ddof=1)) if len(column) > 1 else math.nan for key, column in columns.items()
        }
    return {
        "metric_per_case": [
            {
                "metrics": {structure: dict(values) for structure, values in metrics.items()},
                "prediction_file": str(case.prediction),
                "reference_file": str(case.ground_truth),
            }
            for case, metrics in scored
        ],
        "mean": mean,
        "sd": spread,
        "foreground_mean": {key: float(np.mean([values[key] for values in mean.values()])) for key in keys},
        "settings": {
            "labels": listed_structures(settings.labels),
            "ignore_label": settings.labels.ignore_label,
            "metrics": list(settings.metrics),
            "tolerance_mm": settings.tolerance_mm,
            "connectivity": settings.connectivity,
            "reader": settings.reader.__name__,
        },
    }


def listed_structures(labels: LabelSystem) -> list[int | list[int]]:
    """What was scored, as JSON holds it."""
    return [list(item) if isinstance(item, tuple) else item for item in labels.structures]


def _defined(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def write_summary(summary: Mapping[str, Any], json_path: Path) -> Path:
    """Write JSON, and CSV beside it.

    Args:
        summary: from `make_summary`, with `errors`.
        json_path: ends in `.json`.

    Returns:
        Path of the CSV file.

    Raises:
        ConfigError: the path ends otherwise, or cannot be written.
    """
    if json_path.suffix != ".json":
        raise ConfigError(f"json_path: expected a name that ends in .json, got '{json_path.name}'. {json_path}.")
    make_folder(json_path.parent)
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(_rows(summary))
    csv_path = json_path.with_suffix(".csv")
    try:
        write_atomically(csv_path, table.getvalue().encode())
        write_atomically(json_path, (json.dumps(summary, indent=4, sort_keys=True) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"output: expected a place to write to, got {error}. {json_path}. Choose another.") from error
    return csv_path


def _rows(summary: Mapping[str, Any]) -> Iterator[list[str]]:
    """A line for every case and label; cases that were not scored with their message; the means and spreads."""
    keys = list(summary["foreground_mean"])
    yield ["case", "label", *keys, "problem"]
    for entry in summary["metric_per_case"]:
        for label, values in entry["metrics"].items():
            yield [case_name(entry["prediction_file"]), label, *_cells(values, keys), ""]
    for error in summary["errors"]:
        yield [error["case"], "", *[""] * len(keys), error["message"]]
    for name in ("mean", "sd"):
        for label, values in summary[name].items():
            yield [name, label, *_cells(values, keys), ""]


def _cells(values: Values, keys: Sequence[str]) -> list[str]:
    return ["" if math.isnan(values[key]) else repr(values[key]) for key in keys]
