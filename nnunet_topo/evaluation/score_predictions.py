"""Scores of a folder of cross-validated predictions, kept beside them in summary_topo.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_topo.data.descriptions import read_dataset_json
from nnunet_topo.data.raw import read_object, spacing_sidecar
from nnunet_topo.errors import DataError
from nnunet_topo.evaluation.evaluate import evaluate_folders, write_evaluation
from nnunet_topo.evaluation.layout import label_system
from nnunet_topo.evaluation.summaries import read_summary
from nnunet_topo.evaluation.summary_file import listed_structures
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
        reuse: take the scores that lie there when they are of these metrics, labels and references, and newer than all
            predictions and references.

    Returns:
        In the shape of nnU-Net's summary.json.

    Raises:
        DataError: a case cannot be scored; candidates must be compared on the same cases.
    """
    dataset_json = folder / "dataset.json"
    file = folder / SUMMARY_NAME
    if reuse:
        kept = _kept_scores(file, folder, ground_truth, metrics)
        if kept is not None:
            return kept
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


def _kept_scores(file: Path, folder: Path, ground_truth: Path, metrics: Sequence[str]) -> dict[str, Any] | None:
    """Content of the file if it is what scoring now would write; None if not, or if it is missing or damaged."""
    content = read_dataset_json(folder / "dataset.json")
    ending, system = content["file_ending"], label_system(content)
    predictions = sorted(folder.glob(f"*{ending}"))
    references = [ground_truth / path.name for path in predictions]
    cases = [path.name.removesuffix(ending) for path in predictions]
    sidecars = [spacing_sidecar(place, case) for place in (folder, ground_truth) for case in cases]
    # `nnunet-topo evaluate` writes to the same place, with any settings.
    expected = {
        "labels": listed_structures(system),
        "ignore_label": system.ignore_label,
        "tolerance_mm": TOLERANCE_MM,
        "connectivity": None,
    }
    try:
        scores = read_summary(file)
        summary = read_object(file)
        whole = [summary["foreground_mean"], *(summary["mean"][str(label)] for label in system.structures)]
        current = (
            {entry["reference_file"] for entry in summary["metric_per_case"]} == {*map(str, references)}
            and set(scores.cases) == set(cases)
            and {name: scores.settings.get(name) for name in expected} == expected
            and all(METRICS[name].key in means for name in metrics for means in whole)
        )
        files = [*predictions, *references, *(path for path in sidecars if path.is_file())]
        newest = max((path.stat().st_mtime for path in files), default=0.0)
        return summary if current and newest <= file.stat().st_mtime else None
    except (DataError, KeyError, TypeError, OSError):
        return None
