"""The score of the Kaggle competition "Vesuvius Challenge - Surface Detection", equal to the official scorer."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnunet_topo.errors import ConfigError, ShapeError
from nnunet_topo.metrics.betti_matching import Counts, betti_matching_counts
from nnunet_topo.metrics.surface import surface_dice
from nnunet_topo.metrics.voi import partition_agreement

_PART_WEIGHTS = (0.3, 0.35, 0.35)
_DIMENSION_WEIGHTS = (0.34, 0.33, 0.33)
_PSEUDOCOUNT = 0.5
# More threads than this wait for one another; memory grows with them.
_MOST_THREADS = 2


@dataclass(frozen=True)
class LeaderboardScore:
    """The score of a volume and what it is made of.

    Attributes:
        score: 0.3 topo_score + 0.35 surface_dice + 0.35 voi_score, in [0, 1], 1 is perfect.
        topo_score: share of matched components, loops and cavities, in [0, 1].
        surface_dice: share of the surfaces within the tolerance, in [0, 1].
        voi_score: 1 / (1 + voi_alpha (voi_split + voi_merge)), in [0, 1].
        voi_split: bits, >= 0.
        voi_merge: bits, >= 0.
        counts: {dimension: (matched, predicted, ground truth)} summed over the octants.
    """

    score: float
    topo_score: float
    surface_dice: float
    voi_score: float
    voi_split: float
    voi_merge: float
    counts: Counts


def leaderboard_score(
    prediction: ArrayLike,
    ground_truth: ArrayLike,
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    tolerance: float = 2.0,
    voi_alpha: float = 0.3,
    ignore_label: float | None = 2,
) -> LeaderboardScore:
    """Score one predicted volume against its labels as the competition does.

    The defaults are the competition's. Its score of a submission is the mean over the volumes. Ignored voxels become
    background in both volumes before anything is computed, so their border cuts components and opens loops in both
    alike. Two properties that surprise: in the topology score the foreground has 6 neighbours, in the variation of
    information 26; and topology is counted in each octant by itself, one component of each left out, so a volume with
    one perfect sheet holds nothing to match, and one stray voxel then costs 0.2.

    Args:
        prediction: (Z, Y, X) bool, int or float; everything but 0 and NaN is foreground, also a 2 or a 255.
        ground_truth: same shape; likewise, but for the ignored voxels.
        spacing: one value > 0 per axis, same order; used for the surface Dice.
        tolerance: of the surface Dice, >= 0, in units of the spacing.
        voi_alpha: weight of the variation of information, >= 0. (1 is the default of the official package, 0.3 what
            the competition uses.)
        ignore_label: value of `ground_truth` that is left out; None if there is none.

    Returns:
        The score. Nothing but background in both (all ignored included): 1 in every part. An empty prediction
        of a single component scores 0.35 to 0.65, since nothing was split or merged: that is the official rule.

    Raises:
        ShapeError: shapes differ, an array is not a volume of numbers, or it holds no voxel.
        ConfigError: the spacing, the tolerance or `voi_alpha` is out of range.
        DataError: an octant of one differs from the other's by noise, in about 100 000 loops or more.

    Source:
        The competition's published metric. Octants of odd sizes: the first half is the larger one. For a dimension
        without features in the ground truth the share is 0.5 / (predicted + 0.5); without features in both it is
        left out, and the weights 0.34, 0.33, 0.33 are rescaled.
    """
    predicted, expected = _foreground(prediction, ground_truth, ignore_label)
    if len(spacing) != 3 or not all(math.isfinite(value) and value > 0 for value in spacing):
        raise ConfigError(f"spacing: expected 3 numbers > 0, got {tuple(spacing)}.")
    for name, value in (("tolerance", tolerance), ("voi_alpha", voi_alpha)):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name}: expected a number >= 0, got {value!r}.")
    # Threads, not processes: the time goes to numpy, scipy and cc3d, and any process may have them, daemonic ones too.
    with ThreadPoolExecutor(_threads()) as pool:
        parts = [
            pool.submit(betti_matching_counts, predicted[part], expected[part]) for part in _octants(predicted.shape)
        ]
        surface = pool.submit(surface_dice, predicted, expected, spacing_mm=spacing, tolerance_mm=tolerance)
        partition = pool.submit(partition_agreement, predicted, expected, connectivity=26)
    counts = _summed([part.result() for part in parts])
    agreement = partition.result()
    topo = topo_score(counts)
    voi = 1 / (1 + voi_alpha * (agreement.voi_split + agreement.voi_merge))
    return LeaderboardScore(
        score=float(np.average((topo, surface.result(), voi), weights=_PART_WEIGHTS)),
        topo_score=topo,
        surface_dice=surface.result(),
        voi_score=voi,
        voi_split=agreement.voi_split,
        voi_merge=agreement.voi_merge,
        counts=counts,
    )


def topo_score(counts: Counts) -> float:
    """Weighted share of matched features, the competition's.

    Args:
        counts: {dimension: (matched, predicted, ground truth)}, summed over the parts of a volume.

    Returns:
        In [0, 1]. No features at all: 1.
    """
    shares, weights = [], []
    for dimension, (matched, predicted, expected) in counts.items():
        if predicted or expected:
            share = 2 * matched / (predicted + expected) if expected else _PSEUDOCOUNT / (predicted + _PSEUDOCOUNT)
            shares.append(share)
            weights.append(_DIMENSION_WEIGHTS[dimension])
    return float(np.average(shares, weights=weights)) if shares else 1.0


def _foreground(
    prediction: ArrayLike, ground_truth: ArrayLike, ignore_label: float | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    predicted, expected = np.asarray(prediction), np.asarray(ground_truth)
    for name, volume in (("prediction", predicted), ("ground_truth", expected)):
        if volume.ndim != 3 or volume.size == 0 or volume.dtype.kind not in "biuf":
            raise ShapeError(
                f"{name}: expected a 3-D array (Z, Y, X) of numbers with at least one voxel, got shape {volume.shape} "
                f"of {volume.dtype}. The score is defined for volumes; take the axis of channels away, if there is one."
            )
    if predicted.shape != expected.shape:
        raise ShapeError(
            f"ground_truth: expected the shape {predicted.shape} of the prediction, got {expected.shape}. "
            "Check that both belong to the same case."
        )
    masks = [(volume != 0) & (volume == volume) for volume in (predicted, expected)]  # NaN differs from itself
    if ignore_label is not None:
        counted = expected != ignore_label
        masks = [mask & counted for mask in masks]
    return masks[0], masks[1]


def _octants(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    halves = []
    for size in shape:
        middle = (size + 1) // 2
        halves.append([slice(0, middle), slice(middle, size)] if size > 1 else [slice(0, 1)])
    return list(product(*halves))


def _summed(parts: list[Counts]) -> Counts:
    totals = np.sum([[part[dimension] for dimension in range(3)] for part in parts], axis=0)
    return {dimension: (int(m), int(p), int(g)) for dimension, (m, p, g) in enumerate(totals)}


def _threads() -> int:
    return min(_MOST_THREADS, os.cpu_count() or 1)
