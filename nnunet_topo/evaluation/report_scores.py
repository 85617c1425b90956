"""Scores of the cases of a report, worst first, and how two results differ in them."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_topo.data.raw import read_json
from nnunet_topo.errors import DataError
from nnunet_topo.evaluation.compare import MetricDifference, metric_difference
from nnunet_topo.evaluation.evaluate import evaluate_folders
from nnunet_topo.evaluation.score_predictions import SUMMARY_NAME
from nnunet_topo.evaluation.summaries import Scores, case_name, read_summary
from nnunet_topo.metrics.registry import METRICS

# From what matters most for topology to what only describes; also the order of the table's columns.
SHOWN = (
    "leaderboard", "topo_score", "betti_matching_error", "betti_0_error", "betti_1_error", "betti_2_error", "cldice",
    "surface_dice", "voi_score", "voi_split", "voi_merge", "hd95", "assd", "dice", "precision", "recall", "iou",
)  # fmt: skip
BETTI_ERRORS = ("betti_0_error", "betti_1_error", "betti_2_error")


@dataclass(frozen=True)
class Predictions:
    """A folder of predicted cases with its scores.

    Attributes:
        name: of the fold, empty for a folder of predictions.
        folder: with the predicted segmentations.
        ground_truth: folder of the labels; None when it was not found.
        scores: value by case, label and key.
        notes: where the scores come from if not from summary_topo.json, and what could not be scored.
        ignore_label: that summary_topo.json was scored with, for predictions without a dataset.json.
    """

    name: str
    folder: Path
    ground_truth: Path | None
    scores: Scores
    notes: tuple[str, ...]
    ignore_label: int | None = None


@dataclass(frozen=True)
class Row:
    """One label of one case.

    Attributes:
        case: name.
        label: as in summary.json, `1` or `(1, 2)`.
        predictions: where it lies.
        values: value by metric name; no NaN.
    """

    case: str
    label: str
    predictions: Predictions
    values: Mapping[str, float]

    @property
    def badness(self) -> tuple[float, ...]:
        """Larger is worse: by the leaderboard score, else by the Betti errors, then by Dice.

        Dice is missing where nothing is labelled and nothing predicted, which is no error.
        """
        topology = sum(self.values[name] for name in BETTI_ERRORS if name in self.values)
        return (-self.values.get("leaderboard", 0.0), topology, -self.values.get("dice", 1.0))

    @property
    def foreground(self) -> tuple[float, float] | None:
        """Shares of the voxels that are foreground, predicted and labelled."""
        if {"foreground_predicted", "foreground_labelled"} <= set(self.values):
            return self.values["foreground_predicted"], self.values["foreground_labelled"]
        if {"n_pred", "n_ref", "tn", "fp", "fn", "tp"} <= set(self.values):
            voxels = sum(self.values[name] for name in ("tp", "fp", "fn", "tn"))
            return (self.values["n_pred"] / voxels, self.values["n_ref"] / voxels) if voxels else None
        return None


def read_predictions(
    name: str,
    folder: Path,
    dataset: str,
    dataset_json: Mapping[str, Any],
    *,
    ground_truth: Path | None = None,
    processes: int = 2,
) -> Predictions:
    """Scores of a folder of predictions: read where they lie, otherwise computed, otherwise nnU-Net's own.

    Args:
        name: of the fold.
        folder: with the predictions.
        dataset: folder name of the dataset, to look for the labels.
        dataset_json: of the dataset, empty if unknown.
        ground_truth: folder of the labels; None: where nnU-Net keeps them.
        processes: for computing scores.
    """
    if not folder.is_dir():
        return Predictions(name, folder, None, {}, ("no validation folder: this fold was not validated",))
    truth = ground_truth or _find_ground_truth(folder, dataset)
    if (folder / SUMMARY_NAME).is_file():
        summary = read_summary(folder / SUMMARY_NAME)
        return Predictions(name, folder, truth, summary.cases, (), summary.settings.get("ignore_label"))
    if truth is not None:
        content = dict(dataset_json) if dataset_json else None
        evaluation = evaluate_folders(truth, folder, dataset_json=content, processes=processes, chill=True)
        scores = {
            case_name(entry["prediction_file"]): entry["metrics"] for entry in evaluation.summary["metric_per_case"]
        }
        problems = (f"{problem.case}: {problem.message}" for problem in evaluation.problems)
        note = f"there was no {SUMMARY_NAME}: the scores were computed for this report"
        return Predictions(name, folder, truth, scores, (note, *problems))
    if (folder / "summary.json").is_file():
        note = f"neither {SUMMARY_NAME} nor the labels were found: nnU-Net's own scores only, and no pictures"
        return Predictions(name, folder, None, read_summary(folder / "summary.json").cases, (note,))
    return Predictions(name, folder, None, {}, ("no scores and no labels were found",))


def rows_worst_first(predictions: Iterable[Predictions]) -> list[Row]:
    """A row per case and foreground label."""
    rows = [
        Row(case, label, folder, _named(values))
        for folder in predictions
        for case, labels in folder.scores.items()
        for label, values in labels.items()
        if label != "0"
    ]
    return sorted(rows, key=lambda row: (*(-value for value in row.badness), row.case, row.label))


def shown_metrics(rows: Sequence[Row]) -> list[str]:
    """Names of the metrics that any row has, in the order of the table."""
    return [name for name in SHOWN if any(name in row.values for row in rows)]


def mean_of(rows: Iterable[Row], metric: str) -> float:
    """Mean over the rows that have the metric, NaN for none."""
    values = [row.values[metric] for row in rows if metric in row.values]
    return math.fsum(values) / len(values) if values else math.nan


def differences(rows: Sequence[Row], others: Sequence[Row]) -> list[MetricDifference]:
    """Every metric of two results over the cases that both have.

    For a case stands the mean over the labels that have a value in both, as in `compare_summaries`.
    """
    found = []
    theirs = {(row.case, row.label): row for row in others}
    for name in shown_metrics(rows):
        pairs: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            other = theirs.get((row.case, row.label))
            if other is not None and name in row.values and name in other.values:
                pairs.setdefault(row.case, []).append((other.values[name], row.values[name]))
        if pairs and METRICS[name].higher_is_better is not None:
            baseline, result = np.array([np.mean(values, axis=0) for values in pairs.values()]).T
            found.append(metric_difference(baseline, result, key=METRICS[name].key))
    return found


def _named(values: Mapping[str, float]) -> dict[str, float]:
    names = {metric.key: name for name, metric in METRICS.items()}
    return {names[key]: value for key, value in values.items() if key in names and math.isfinite(value)}


def _find_ground_truth(folder: Path, dataset: str) -> Path | None:
    """The labels' folder: where nnU-Net's summary says, else below the folders of the environment."""
    candidates = []
    if (folder / "summary.json").is_file():
        with contextlib.suppress(DataError, KeyError, IndexError, TypeError):  # a hint, wherever it can be read
            entries = read_json(folder / "summary.json")["metric_per_case"]
            candidates.append(Path(entries[0]["reference_file"]).parent)
    for variable, below in (("nnUNet_preprocessed", "gt_segmentations"), ("nnUNet_raw", "labelsTr")):
        if os.environ.get(variable):
            candidates.append(Path(os.environ[variable]) / dataset / below)
    return next((place for place in candidates if place != Path() and place.is_dir()), None)
