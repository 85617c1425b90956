"""Agreement of the components of two masks: variation of information and adjusted Rand index."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray

from nnunet_topo.metrics.betti import check_mask, check_same_shape, foreground_connectivity

# Largest contingency table that is counted densely; beyond it (tens of thousands of crumbs in both) pairs are sorted.
_DENSE_TABLE_CELLS = 1 << 22
_VOXELS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class PartitionAgreement:
    """How well the components of a prediction agree with those of the ground truth.

    Attributes:
        voi_split: bits, >= 0: what the prediction tells beyond the ground truth, H(prediction | ground truth). It grows
            where the prediction cuts a component, leaves a piece of it out, or has a speck of its own.
        voi_merge: bits, >= 0: H(ground truth | prediction). It grows where the prediction joins components.
        ari: adjusted Rand index, at most 1; 1 is perfect, 0 what chance would give.
    """

    voi_split: float
    voi_merge: float
    ari: float


def partition_agreement(
    prediction: NDArray[np.bool_], ground_truth: NDArray[np.bool_], *, connectivity: int | None = None
) -> PartitionAgreement:
    """Variation of information, in bits, and adjusted Rand index of two masks' connected components.

    Both are taken over the voxels that are foreground in at least one of the masks; there, the background of the other
    mask counts as one more component. So thickness matters: a prediction that is one voxel too thick pays in
    `voi_merge`, though no component is joined.

    Args:
        prediction: (X, Y, Z) or (X, Y) bool.
        ground_truth: bool, same shape.
        connectivity: of the components; 26 or 6 in 3-D, 8 or 4 in 2-D. None means 26 or 8, the larger one.

    Returns:
        The scores. Both masks empty: 0, 0 and an `ari` of 1. One of them empty: the components of the other as
        `voi_split` or `voi_merge` (0 bits if it is a single one, as in the official scorer of the Vesuvius
        competition) and an `ari` of 0.

    Raises:
        ShapeError: shapes differ, or an array is not a 2-D or 3-D boolean array.
        ConfigError: the connectivity does not exist in that number of dimensions.

    Source:
        Meila, Comparing clusterings: an information based distance, J. Multivariate Analysis 2007, eq. 15 and 16, with
        base-2 logarithms. Hubert and Arabie, Comparing partitions, J. Classification 1985, eq. 5.
    """
    check_mask("prediction", prediction)
    check_same_shape("ground_truth", ground_truth, prediction)
    neighbours = foreground_connectivity(prediction.ndim, connectivity)
    union = prediction | ground_truth
    if not union.any():
        return PartitionAgreement(voi_split=0.0, voi_merge=0.0, ari=1.0)
    # A copy as integers, since cc3d 4.1.1 refuses some arrays of bool that have a single plane along an axis, and all
    # that may not be written to.
    predicted, expected = (
        cc3d.connected_components(mask.astype(np.uint8), connectivity=neighbours)[union]
        for mask in (prediction, ground_truth)
    )
    counts, predicted_of, expected_of = _contingency(predicted, expected)
    predicted_sizes = np.bincount(predicted_of, weights=counts).astype(np.float64)
    expected_sizes = np.bincount(expected_of, weights=counts).astype(np.float64)
    total = counts.sum()
    split = -np.sum(counts * np.log2(counts / expected_sizes[expected_of])) / total
    merge = -np.sum(counts * np.log2(counts / predicted_sizes[predicted_of])) / total
    one_is_empty = not (prediction.any() and ground_truth.any())
    ari = 0.0 if one_is_empty else _adjusted_rand_index(counts, predicted_sizes, expected_sizes)
    # -0.0 would be the exact value of perfect agreement
    return PartitionAgreement(voi_split=float(split) + 0.0, voi_merge=float(merge) + 0.0, ari=ari)


def _contingency(
    predicted: NDArray[np.unsignedinteger], expected: NDArray[np.unsignedinteger]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Voxels of every pair of labels that occurs, and the two labels of the pair."""
    columns = int(expected.max()) + 1
    cells = (int(predicted.max()) + 1) * columns
    if cells > _DENSE_TABLE_CELLS:
        pairs, counts = np.unique(predicted.astype(np.int64) * columns + expected, return_counts=True)
    else:
        table = np.zeros(cells, np.int64)
        for start in range(0, predicted.size, _VOXELS_AT_ONCE):
            part = slice(start, start + _VOXELS_AT_ONCE)
            table += np.bincount(predicted[part].astype(np.int64) * columns + expected[part], minlength=cells)
        pairs = np.flatnonzero(table)
        counts = table[pairs]
    return counts.astype(np.float64), pairs // columns, pairs % columns


def _adjusted_rand_index(
    counts: NDArray[np.float64], predicted_sizes: NDArray[np.float64], expected_sizes: NDArray[np.float64]
) -> float:
    def pairs(sizes: NDArray[np.float64]) -> float:
        return float(np.sum(sizes * (sizes - 1)) / 2)

    together, in_predicted, in_expected = pairs(counts), pairs(predicted_sizes), pairs(expected_sizes)
    by_chance = in_predicted * in_expected / max(pairs(counts.sum(keepdims=True)), 1.0)
    best = (in_predicted + in_expected) / 2
    # equal only where both partitions are one component, or both single voxels: they agree
    return 1.0 if best == by_chance else (together - by_chance) / (best - by_chance)
