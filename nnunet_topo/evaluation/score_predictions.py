"""Scores of a folder of cross-validated predictions, kept beside them in summary_topo.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_topo.data.raw import read_json
from nnunet_topo.errors import DataError
from nnunet_topo.evaluation.evaluate import evaluate_folders, write_evaluation
from nnunet_topo.evaluation.summaries import case_name
from nnunet_topo.metrics.registry import METRICS
from nnunet_topo.metrics.scores import TOLERANCE_MM

SUMMARY_NAME = "summary_topo.json"
_NAMED = 5


def score_predictions(
    folder: Path, ground_truth: Path, metrics: Sequence[str], *, processes: int, reuse: bool = False
) -> dict[str, Any]:
    """Scores of every case in a folder of predictions, written into its summary_topo.json (and .csv).

    Args:
        folder: predictions with dataset.json.
        ground_truth: reference segmentations; those of other cases don't matter.
        metrics: names.
        processes: worker processes.
        reuse: take the scores that lie there when they are newer than the predictions and hold these metrics.

    Returns:
        In the shape of nnU-Net's summary.json.

    Raises:
        DataError: a case cannot be scored; candidates must be compared on the same cases.
    """
    dataset_json = folder / "dataset.json"
    file = folder / SUMMARY_NAME
    if reuse and file.is_file():
        summary = read_json(file)
        if _is_current(summary, file.stat().st_mtime, folder, read_json(dataset_json)["file_ending"], metrics):
            return dict(summary)
    evaluation = evaluate_folders(
        ground_truth,
        folder,
        dataset_json=dataset_json,
        metrics=metrics,
        processes=processes,
        chill=True,
    )
    if evaluation.problems:
        listed = "; ".join(f"{problem.case}: {problem.message}" for problem in evaluation.problems[:_NAMED])
        raise DataError(
            f"predictions: expected every case to be scored, got {len(evaluation.problems)} that cannot be. {folder}. "
            f"{listed}"
        )
    write_evaluation(evaluation, file)
    return evaluation.summary


def _is_current(
    summary: Mapping[str, Any], written: float, folder: Path, file_ending: str, metrics: Sequence[str]
) -> bool:
    predictions = list(folder.glob(f"*{file_ending}"))
    cases = {case_name(entry["prediction_file"]) for entry in summary["metric_per_case"]}
    settings = summary.get("settings", {})
    return (
        # `nnunet-topo evaluate` writes to the same place, with any settings.
        settings.get("tolerance_mm") == TOLERANCE_MM
        and settings.get("connectivity") is None
        and cases == {path.name.removesuffix(file_ending) for path in predictions}
        and all(METRICS[name].key in summary["foreground_mean"] for name in metrics)
        and all(path.stat().st_mtime <= written for path in predictions)
    )
