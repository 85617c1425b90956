"""clDice of binary masks against values worked out by hand, where other implementations fail included."""

import math

import numpy as np
import pytest

from nnunet_topo.errors import ShapeError
from nnunet_topo.metrics.cldice import cldice


def line(*ranges, shape=(40, 9, 9)):
    """Voxels of a straight line along the first axis, one voxel thick."""
    mask = np.zeros(shape, bool)
    for start, stop in ranges:
        mask[start:stop, 4, 4] = True
    return mask


def rod(width, length=24):
    """A bar of square cross-section with a margin around it."""
    mask = np.zeros((length + 6, width + 6, width + 6), bool)
    mask[3:-3, 3 : 3 + width, 3 : 3 + width] = True
    return mask


# A line one voxel thick is its own skeleton, so the shares can be counted.
BY_HAND = {
    "equal": (line((5, 35)), line((5, 35)), 1.0),
    "a gap of 6 of 30": (line((5, 15), (21, 35)), line((5, 35)), 2 * 1.0 * 0.8 / 1.8),
    "10 too long": (line((5, 35)), line((5, 25)), 2 * (20 / 30) * 1.0 / (20 / 30 + 1)),
    "half missing, a third invented": (line((0, 15)), line((5, 25)), 2 * (10 / 15) * (10 / 20) / (10 / 15 + 10 / 20)),
    "apart": (line((0, 10)), line((20, 30)), 0.0),
    "image": (line((2, 12))[:, 4], line((2, 22))[:, 4], 2 * 1.0 * 0.5 / 1.5),
}


@pytest.mark.parametrize(("prediction", "truth", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_values_worked_out_by_hand(prediction, truth, expected):
    assert cldice(prediction, truth) == pytest.approx(expected)
    assert cldice(truth, prediction) == pytest.approx(expected)


def test_a_tube_around_the_line_finds_all_of_it():
    truth = line((4, 36))
    prediction = np.zeros_like(truth)
    prediction[4:36, 3:6, 3:6] = True
    assert cldice(prediction, truth) == 1.0


@pytest.mark.parametrize("width", range(1, 9))
def test_bars_of_every_width_are_seen_whole(width):
    # skimage's thinning leaves nothing of a bar of even width.
    truth = rod(width)
    assert cldice(truth, truth) == 1.0
    cut = truth.copy()
    cut[12:18] = False
    assert cldice(cut, truth) == pytest.approx(2 * 0.75 / 1.75, abs=0.06)


def test_a_branch_of_even_width_on_a_thick_body_counts():
    # skimage's thinning leaves one voxel of the body, and the branch vanishes.
    truth = np.zeros((23, 23, 60), bool)
    truth[3:20, 3:20, 3:20] = True
    body = truth.copy()
    truth[10:14, 10:14, 20:56] = True
    assert cldice(body, truth) < 0.5
    assert cldice(truth, truth) == 1.0


def test_small_components_are_not_lost():
    truth = np.zeros((12, 12, 30), bool)
    for width, start in ((1, 2), (2, 6), (3, 11), (4, 17), (5, 24)):
        truth[3 : 3 + width, 3 : 3 + width, start : start + width] = True
    only_one = np.zeros_like(truth)
    only_one[3:8, 3:8, 24:29] = True
    assert 0 < cldice(only_one, truth) < 0.9


def test_flips_and_turns_change_nothing():
    generator = np.random.default_rng(0)
    truth = np.pad(generator.random((6, 7, 8)) < 0.3, 2).repeat(2, axis=0).repeat(3, axis=2)
    prediction = np.roll(truth, 1, axis=1)
    expected = cldice(prediction, truth)
    assert 0 < expected < 1
    for turn in (lambda mask: mask[::-1], lambda mask: mask.transpose(2, 0, 1), lambda mask: mask[:, ::-1, ::-1]):
        assert cldice(turn(prediction), turn(truth)) == expected


def test_empty_masks():
    mask, empty = line((5, 35)), np.zeros((40, 9, 9), bool)
    assert math.isnan(cldice(empty, empty))
    assert cldice(mask, empty) == 0.0
    assert cldice(empty, mask) == 0.0


def test_wrong_input_is_named():
    with pytest.raises(ShapeError, match="prediction: expected a 2-D or 3-D numpy array of bool"):
        cldice(np.ones((3, 3), np.uint8), np.ones((3, 3), bool))
    with pytest.raises(ShapeError, match="ground_truth: expected the shape"):
        cldice(np.ones((3, 3), bool), np.ones((3, 4), bool))
