"""Scores that count voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_topo.metrics.betti import check_mask, check_same_shape


@dataclass(frozen=True)
class VoxelCounts:
    """How many voxels two masks have in common; ignored voxels are in none of the four.

    A score of two masks that are both empty says nothing and is NaN, as nnU-Net has it. Where only one of them is
    empty, precision and recall are both 0: a prediction that leaves everything out must not drop out of a mean.

    Attributes:
        tp: foreground in both.
        fp: foreground in the prediction alone.
        fn: foreground in the ground truth alone.
        tn: background in both.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def voxels(self) -> int:
        """Voxels that count."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def n_pred(self) -> int:
        """Foreground of the prediction."""
        return self.tp + self.fp

    @property
    def n_ref(self) -> int:
        """Foreground of the ground truth."""
        return self.tp + self.fn

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return self._share(2 * self.tp, self.n_pred + self.n_ref)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN)."""
        return self._share(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return self._share(self.tp, self.n_pred or self.n_ref)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return self._share(self.tp, self.n_ref or self.n_pred)

    @property
    def accuracy(self) -> float:
        """(TP + TN) / all; NaN only where every voxel is ignored."""
        return self._share(self.tp + self.tn, self.voxels)

    @property
    def foreground_predicted(self) -> float:
        """Share of the voxels that the prediction calls foreground; NaN where every voxel is ignored."""
        return self._share(self.n_pred, self.voxels)

    @property
    def foreground_labelled(self) -> float:
        """Share of the voxels that the ground truth calls foreground; NaN where every voxel is ignored."""
        return self._share(self.n_ref, self.voxels)

    @staticmethod
    def _share(part: int, whole: int) -> float:
        return part / whole if whole else math.nan


def voxel_counts(
    prediction: NDArray[np.bool_], ground_truth: NDArray[np.bool_], *, ignore: NDArray[np.bool_] | None = None
) -> VoxelCounts:
    """Count the voxels of each kind.

    Args:
        prediction: (X, Y, Z) or (X, Y) bool.
        ground_truth: bool, same shape.
        ignore: bool, same shape: voxels to leave out.

    Returns:
        The counts, with the scores that follow from them.

    Raises:
        ShapeError: shapes differ, or an array is not a 2-D or 3-D boolean array.
    """
    check_mask("prediction", prediction)
    check_same_shape("ground_truth", ground_truth, prediction)
    voxels = prediction.size
    if ignore is not None:
        check_same_shape("ignore", ignore, prediction)
        prediction, ground_truth = prediction & ~ignore, ground_truth & ~ignore
        voxels -= int(np.count_nonzero(ignore))
    both = int(np.count_nonzero(prediction & ground_truth))
    predicted, expected = int(np.count_nonzero(prediction)), int(np.count_nonzero(ground_truth))
    return VoxelCounts(both, predicted - both, expected - both, voxels - predicted - expected + both)
