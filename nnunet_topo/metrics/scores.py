"""Any metrics of one pair of masks, by name; what several of them need is computed once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_topo.metrics.betti import betti_numbers
from nnunet_topo.metrics.betti_matching import betti_matching_error
from nnunet_topo.metrics.boxes import foreground_box
from nnunet_topo.metrics.cldice import cldice
from nnunet_topo.metrics.leaderboard import leaderboard_score
from nnunet_topo.metrics.overlap import VoxelCounts, voxel_counts
from nnunet_topo.metrics.registry import METRICS, NNUNET_METRICS, metric_named
from nnunet_topo.metrics.surface import surface_dice, surface_errors
from nnunet_topo.metrics.voi import PartitionAgreement, partition_agreement

TOLERANCE_MM = 2.0
_VOI_ALPHA = 0.3  # the competition's
_BETTI_NUMBER = re.compile(r"betti_[012]_")
_OF_COUNTS = (*NNUNET_METRICS, "precision", "recall", "accuracy", "foreground_predicted", "foreground_labelled")

# Scores of agreement, which their functions call perfect. A class that many cases lack would look too good by them.
_UNDEFINED_WITHOUT_FOREGROUND = ("surface_dice", "voi_split", "voi_merge", "ari")

Values = Mapping[str, float]


@dataclass(frozen=True)
class _Masks:
    """Two masks without their ignored voxels, whole and cut to where one of them has foreground."""

    prediction: NDArray[np.bool_]
    ground_truth: NDArray[np.bool_]
    cut_prediction: NDArray[np.bool_]
    cut_ground_truth: NDArray[np.bool_]
    counts: VoxelCounts
    spacing_mm: tuple[float, ...]
    tolerance_mm: float
    connectivity: int | None


def scores(
    prediction: NDArray[np.bool_],
    ground_truth: NDArray[np.bool_],
    metrics: Iterable[str],
    *,
    spacing_mm: Sequence[float],
    tolerance_mm: float = TOLERANCE_MM,
    connectivity: int | None = None,
    ignore: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Values of metrics by name.

    Ignored voxels count in no voxel count, and are background in both masks for everything else. Without foreground
    in either mask there is nothing to agree on: all scores are NaN but the accuracy and those of the competition;
    numbers and their errors are 0.

    Args:
        prediction: (X, Y, Z) or (X, Y) bool.
        ground_truth: bool, same shape.
        metrics: names in the registry.
        spacing_mm: one value > 0 per axis, same order.
        tolerance_mm: of the surface Dice, >= 0.
        connectivity: of components, loops and cavities; 26 or 6 in 3-D, 8 or 4 in 2-D. None means 26 or 8. The
            scores of the competition (leaderboard, topo_score, voi_score) have their own settings, in voxels.
        ignore: bool, same shape.

    Returns:
        Counts as int, the rest as float, in the order of `metrics`.

    Raises:
        ConfigError: an unknown metric, or a setting out of range.
        ShapeError: shapes differ, or an array is not a 2-D or 3-D boolean array.
    """
    names = [metric_named(name).name for name in metrics]
    counts = voxel_counts(prediction, ground_truth, ignore=ignore)
    if ignore is not None:
        prediction, ground_truth = prediction & ~ignore, ground_truth & ~ignore
    box = foreground_box(prediction, ground_truth) or (slice(0, 1),) * prediction.ndim
    masks = _Masks(
        prediction, ground_truth, prediction[box], ground_truth[box], counts, tuple(spacing_mm), tolerance_mm,
        connectivity,
    )  # fmt: skip
    values: dict[str, float] = {}
    for given, compute in _COMPUTATIONS:
        if given & set(names) - values.keys():
            values.update(compute(masks))
    if not counts.n_pred and not counts.n_ref:
        values.update(dict.fromkeys(_UNDEFINED_WITHOUT_FOREGROUND, math.nan))
    return {name: values[name] for name in names}


def _overlap(masks: _Masks) -> Values:
    return {name: getattr(masks.counts, name) for name in _OF_COUNTS}


def _cldice(masks: _Masks) -> Values:
    return {"cldice": cldice(masks.cut_prediction, masks.cut_ground_truth)}


def _betti(masks: _Masks) -> Values:
    predicted, labelled = (
        betti_numbers(mask, connectivity=masks.connectivity) for mask in (masks.cut_prediction, masks.cut_ground_truth)
    )
    values: dict[str, float] = {"euler_error": abs(_euler(predicted) - _euler(labelled))}
    for dimension in range(3):
        values[f"betti_{dimension}_predicted"] = predicted[dimension]
        values[f"betti_{dimension}_labelled"] = labelled[dimension]
        values[f"betti_{dimension}_error"] = abs(predicted[dimension] - labelled[dimension])
    return values


def _euler(numbers: tuple[int, int, int]) -> int:
    return numbers[0] - numbers[1] + numbers[2]


def _betti_matching(masks: _Masks) -> Values:
    return {"betti_matching_error": betti_matching_error(masks.prediction, masks.ground_truth)}


def _surface_dice(masks: _Masks) -> Values:
    value = surface_dice(
        masks.prediction, masks.ground_truth, spacing_mm=masks.spacing_mm, tolerance_mm=masks.tolerance_mm
    )
    return {"surface_dice": value}


def _surface_errors(masks: _Masks) -> Values:
    errors = surface_errors(masks.prediction, masks.ground_truth, spacing_mm=masks.spacing_mm)
    return {"hd95": errors.hd95, "assd": errors.assd}


def _partition(masks: _Masks) -> Values:
    agreement = _agreement(masks, masks.connectivity)
    return {"voi_split": agreement.voi_split, "voi_merge": agreement.voi_merge, "ari": agreement.ari}


def _agreement(masks: _Masks, connectivity: int | None) -> PartitionAgreement:
    return partition_agreement(masks.cut_prediction, masks.cut_ground_truth, connectivity=connectivity)


def _leaderboard(masks: _Masks) -> Values:
    score = leaderboard_score(masks.prediction, masks.ground_truth)
    return {"leaderboard": score.score, "topo_score": score.topo_score, "voi_score": score.voi_score}


def _voi_score(masks: _Masks) -> Values:
    agreement = _agreement(masks, None)
    return {"voi_score": 1 / (1 + _VOI_ALPHA * (agreement.voi_split + agreement.voi_merge))}


# The leaderboard stands before the part of it that it brings along.
_COMPUTATIONS: tuple[tuple[frozenset[str], Callable[[_Masks], Values]], ...] = (
    (frozenset({*_OF_COUNTS}), _overlap),
    (frozenset({"cldice"}), _cldice),
    (frozenset({"euler_error", *(name for name in METRICS if _BETTI_NUMBER.match(name))}), _betti),
    (frozenset({"betti_matching_error"}), _betti_matching),
    (frozenset({"surface_dice"}), _surface_dice),
    (frozenset({"hd95", "assd"}), _surface_errors),
    (frozenset({"voi_split", "voi_merge", "ari"}), _partition),
    (frozenset({"leaderboard", "topo_score"}), _leaderboard),
    (frozenset({"voi_score"}), _voi_score),
)
