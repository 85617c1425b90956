"""Voxel counts and what follows from them, against sums written out."""

import math

import numpy as np
import pytest

from nnunet_topo.errors import ShapeError
from nnunet_topo.metrics.overlap import VoxelCounts, voxel_counts


def test_counts_equal_sums_over_the_voxels_that_count():
    generator = np.random.default_rng(0)
    prediction, truth, ignore = (generator.random((5, 7, 9)) < share for share in (0.4, 0.3, 0.2))
    expected = [0, 0, 0, 0]
    for predicted, labelled, ignored in zip(prediction.flat, truth.flat, ignore.flat, strict=True):
        if not ignored:
            expected[(0 if labelled else 1) if predicted else (2 if labelled else 3)] += 1
    counts = voxel_counts(prediction, truth, ignore=ignore)
    assert [counts.tp, counts.fp, counts.fn, counts.tn] == expected
    assert counts.voxels == (~ignore).sum()


def test_scores_of_a_case_worked_out_by_hand():
    counts = VoxelCounts(tp=6, fp=2, fn=4, tn=28)
    assert counts.dice == 12 / 18
    assert counts.iou == 6 / 12
    assert counts.precision == 6 / 8
    assert counts.recall == 6 / 10
    assert counts.accuracy == 34 / 40
    assert counts.foreground_predicted == 8 / 40
    assert counts.foreground_labelled == 10 / 40


@pytest.mark.parametrize(
    ("counts", "score", "accuracy"),
    [
        (VoxelCounts(0, 0, 0, 9), math.nan, 1.0),
        (VoxelCounts(0, 0, 3, 6), 0.0, 6 / 9),
        (VoxelCounts(0, 3, 0, 6), 0.0, 6 / 9),
        (VoxelCounts(0, 0, 0, 0), math.nan, math.nan),
    ],
    ids=["both empty", "prediction empty", "ground truth empty", "all ignored"],
)
def test_empty_masks(counts, score, accuracy):
    for name in ("dice", "iou", "precision", "recall"):
        assert getattr(counts, name) == pytest.approx(score, nan_ok=True), name
    assert counts.accuracy == pytest.approx(accuracy, nan_ok=True)


def test_wrong_input_is_named():
    mask = np.zeros((2, 3), bool)
    with pytest.raises(ShapeError, match="ground_truth: expected the shape"):
        voxel_counts(mask, mask.T)
    with pytest.raises(ShapeError, match="ignore: expected a 2-D or 3-D numpy array of bool"):
        voxel_counts(mask, mask, ignore=np.zeros((2, 3)))
