"""All metrics of one case, structure by structure: what a worker process does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_topo.data.check_case import READ_ERRORS
from nnunet_topo.data.labels import distinct_values
from nnunet_topo.errors import DataError, TopoError
from nnunet_topo.evaluation.cases import Case, LabelMap, read_case, read_labels
from nnunet_topo.evaluation.layout import LabelSystem, Structure
from nnunet_topo.metrics.registry import METRICS
from nnunet_topo.metrics.scores import scores


@dataclass(frozen=True)
class Settings:
    """What all cases have in common.

    Attributes:
        reader: class of nnU-Net's reader.
        labels: what is scored, what may occur, and what is ignored.
        metrics: names in the registry.
        tolerance_mm: of the surface Dice.
        connectivity: of components, loops and cavities; None for the larger one.
    """

    reader: type[Any]
    labels: LabelSystem
    metrics: tuple[str, ...]
    tolerance_mm: float
    connectivity: int | None


@dataclass(frozen=True)
class CaseScores:
    """Scores of a case.

    Attributes:
        metrics: value by structure (spelt as nnU-Net does) and key of the metric in summary.json.
        warnings: about its files.
    """

    metrics: dict[str, dict[str, float]]
    warnings: tuple[str, ...]


def score_case(task: tuple[Case, Settings]) -> CaseScores | DataError:
    """Read and score a case.

    Args:
        task: the case, and what is common to all.

    Returns:
        The scores, or what is wrong with the case; nothing that a file may hold raises.
    """
    case, settings = task
    try:
        labels = read_case(case, settings.reader, settings.labels.known)
        ignore = None if settings.labels.ignore_label is None else labels.ground_truth == settings.labels.ignore_label
        metrics = {}
        for structure in settings.labels.structures:
            values = scores(
                structure_mask(labels.prediction, structure),
                structure_mask(labels.ground_truth, structure),
                settings.metrics,
                spacing_mm=labels.spacing_mm,
                tolerance_mm=settings.tolerance_mm,
                connectivity=settings.connectivity,
                ignore=ignore,
            )
            metrics[str(structure)] = {METRICS[name].key: value for name, value in values.items()}
        return CaseScores(metrics, labels.warnings)
    except TopoError as error:
        return DataError(str(error))
    except READ_ERRORS as error:
        return DataError(f"expected a case that can be scored, got {type(error).__name__}: {error}. {case.prediction}.")


def structure_mask(labels: LabelMap, structure: Structure) -> NDArray[np.bool_]:
    """Where a label map holds a label, or any label of a region."""
    if isinstance(structure, int):
        return labels == structure
    mask = np.zeros(labels.shape, bool)
    for label in structure:
        mask |= labels == label
    return mask


def labels_in_file(task: tuple[Path, type[Any]]) -> tuple[int, ...]:
    """Distinct values of a segmentation; none if it cannot be read (`score_case` will say so).

    Args:
        task: path, and class of nnU-Net's reader.
    """
    path, reader = task
    try:
        return distinct_values(read_labels(path, reader)[0])
    except DataError:
        return ()
