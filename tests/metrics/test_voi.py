"""Variation of information and Rand index against scikit-image, scikit-learn and by hand."""

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import variation_of_information
from sklearn.metrics import adjusted_rand_score

from nnunet_topo.errors import ConfigError, ShapeError
from nnunet_topo.metrics import voi
from nnunet_topo.metrics.voi import PartitionAgreement, partition_agreement


def labelled(mask, connectivity):
    neighbours = {26: 3, 6: 1, 8: 2, 4: 1}[connectivity]
    return ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, neighbours))[0]


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(("ndim", "connectivity"), [(3, 26), (3, 6), (2, 8), (2, 4)])
def test_equals_scikit_image_and_scikit_learn(monkeypatch, ndim, connectivity, dense):
    monkeypatch.setattr(voi, "_VOXELS_AT_ONCE", 7)
    if not dense:
        monkeypatch.setattr(voi, "_DENSE_TABLE_CELLS", 0)
    generator = np.random.default_rng(0)
    for index in range(20):
        truth = generator.random(generator.integers(1, 13, ndim)) < 0.3
        truth.flat[0] = True
        prediction = truth ^ (generator.random(truth.shape) < 0.2)
        prediction.flat[-1] = True
        union = prediction | truth
        labels = [labelled(mask, connectivity)[union] for mask in (truth, prediction)]
        found = partition_agreement(prediction, truth, connectivity=connectivity)
        split, merge = variation_of_information(*labels)
        assert (found.voi_split, found.voi_merge) == pytest.approx((split, merge), abs=1e-12), index
        assert found.ari == pytest.approx(adjusted_rand_score(*labels), abs=1e-12), index


def row(*components):
    """Voxels in a row, the given numbers of them with one empty voxel between."""
    return np.array([value for length in components for value in [True] * length + [False]])[None]


def test_a_cut_splits_and_a_bridge_merges():
    cut, whole = row(4, 3), row(8)
    # The voxel of the cut is a component of its own: sizes 4, 3 and 1 of 8.
    bits = -(4 / 8 * math.log2(4 / 8) + 3 / 8 * math.log2(3 / 8) + 1 / 8 * math.log2(1 / 8))
    found = partition_agreement(cut, whole)
    assert (found.voi_split, found.voi_merge) == pytest.approx((bits, 0.0))
    found = partition_agreement(whole, cut)
    assert (found.voi_split, found.voi_merge) == pytest.approx((0.0, bits))
    assert partition_agreement(cut, cut) == PartitionAgreement(0.0, 0.0, 1.0)


def test_empty_masks():
    empty, two = np.zeros((1, 10), bool), row(4, 4)
    assert partition_agreement(empty, empty) == PartitionAgreement(0.0, 0.0, 1.0)
    assert partition_agreement(empty, two) == PartitionAgreement(0.0, 1.0, 0.0)
    assert partition_agreement(two, empty) == PartitionAgreement(1.0, 0.0, 0.0)


def test_a_single_voxel_agrees_with_itself():
    mask = np.ones((1, 1, 1), bool)
    assert partition_agreement(mask, mask) == PartitionAgreement(0.0, 0.0, 1.0)


def test_masks_that_may_not_be_written_to_are_scored():
    first, second = row(4, 4), row(9)
    expected = partition_agreement(first, second)
    for mask in (first, second):
        mask.setflags(write=False)
    assert partition_agreement(first, second) == expected


def test_wrong_input_names_the_argument():
    with pytest.raises(ShapeError, match="prediction: expected a 2-D or 3-D numpy array of bool"):
        partition_agreement(np.zeros((2, 2)), np.zeros((2, 2), bool))
    with pytest.raises(ShapeError, match="ground_truth: expected the shape"):
        partition_agreement(np.zeros((2, 2), bool), np.zeros((2, 3), bool))
    with pytest.raises(ConfigError, match="connectivity"):
        partition_agreement(np.zeros((2, 2), bool), np.zeros((2, 2), bool), connectivity=26)
