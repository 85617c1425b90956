"""Betti matching against plain matrix reduction (slow_leaderboard.py) and by hand."""

import sys
from pathlib import Path

import gudhi
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nnunet_topo.errors import ShapeError
from nnunet_topo.metrics.betti import betti_numbers
from nnunet_topo.metrics.betti_matching import betti_matching_counts, betti_matching_error

sys.path.insert(0, str(Path(__file__).parent))

from slow_leaderboard import matching


def random_pair(generator, shape):
    """Masks of any kinship: independent noise, one with flipped voxels, or two thresholds of like fields."""
    kind = generator.integers(3)
    if kind == 0:
        return tuple(generator.random(shape) < generator.uniform(0.1, 0.9) for _ in range(2))
    if kind == 1:
        truth = generator.random(shape) < generator.uniform(0.3, 0.95)
        return truth ^ (generator.random(shape) < generator.uniform(0, 0.3)), truth
    field = gaussian_filter(generator.standard_normal(shape), 0.7)
    other = field + 0.5 * field.std() * generator.standard_normal(shape)
    return tuple(values > np.quantile(values, generator.uniform(0.1, 0.8)) for values in (other, field))


def test_counts_of_200_random_volumes_equal_the_slow_ones():
    generator = np.random.default_rng(0)
    totals = np.zeros((3, 3), int)
    for index in range(200):
        shape = tuple(int(size) for size in generator.integers(1, 8, 3))
        prediction, truth = random_pair(generator, shape)
        counts = betti_matching_counts(prediction, truth)
        assert counts == matching(prediction, truth), (index, shape)
        totals += [counts[dimension] for dimension in range(3)]
    assert totals[:2].min() > 50  # they hold something to match


@pytest.mark.parametrize(("shape", "shared", "alone"), [((5, 4, 6), 0.03, 0.06), ((2, 8, 9), 0.75, 0.12)])
def test_counts_equal_the_slow_ones_where_the_order_of_the_sweep_decides(shape, shared, alone):
    """Few voxels, so that some of either mask come before any of both; and plates, where all is at the border."""
    generator = np.random.default_rng(0)
    matched = 0
    for index in range(60):
        both = generator.random(shape) < shared
        prediction, truth = (both ^ (generator.random(shape) < alone) for _ in range(2))
        counts = betti_matching_counts(prediction, truth)
        assert counts == matching(prediction, truth), index
        matched += counts[0][0] + counts[1][0]
    assert matched > 50


def test_counts_of_blocks_full_of_cavities_equal_the_slow_ones():
    generator = np.random.default_rng(1)
    matched = 0
    for index in range(12):
        shape = tuple(generator.integers(6, 9, 3))
        inside = np.pad(np.ones([size - 2 for size in shape], bool), 1)
        both = generator.random(shape) < 0.88
        prediction, truth = ((both ^ (generator.random(shape) < 0.06)) | ~inside for _ in range(2))
        counts = betti_matching_counts(prediction, truth)
        assert counts == matching(prediction, truth), index
        matched += counts[2][0]
    assert matched > 20


def test_counts_of_joined_cavities_depend_on_the_order():
    # Three cavities of the union, of which the prediction joins the outer two and the truth the last two.
    prediction = np.ones((5, 6, 7), bool)
    prediction[2, 3, [1, 3, 5]] = False
    prediction[1, 3, 5] = False  # the third one begins before the others
    truth = prediction.copy()
    truth[2, 3, 4] = False
    prediction[2, 1, 1:6] = prediction[2, 2, [1, 5]] = False
    for axis, matched in ((None, 1), (2, 2)):
        masks = [mask if axis is None else np.flip(mask, axis) for mask in (prediction, truth)]
        assert betti_matching_counts(*masks)[2] == (matched, 2, 2)
        assert matching(*masks)[2] == (matched, 2, 2)


def test_counts_of_images_equal_those_of_a_volume_with_a_single_plane():
    generator = np.random.default_rng(2)
    for index in range(25):
        prediction, truth = random_pair(generator, tuple(generator.integers(1, 14, 2)))
        counts = betti_matching_counts(prediction, truth)
        assert counts == matching(prediction[None], truth[None]), index
        assert counts[2] == (0, 0, 0)


def test_numbers_of_features_are_those_of_gudhi():
    mask = np.random.default_rng(3).random((14, 11, 17)) < 0.45
    complex_ = gudhi.CubicalComplex(vertices=1.0 - np.pad(mask, 1))
    complex_.compute_persistence()
    components, loops, cavities = complex_.persistent_betti_numbers(0.5, 0.5)[:3]
    counts = betti_matching_counts(mask, np.zeros_like(mask))
    assert {k: counts[k][1] for k in counts} == {0: components - 1, 1: loops, 2: cavities}
    assert betti_numbers(mask, connectivity=6) == (components, loops, cavities)
    assert betti_matching_error(mask, np.zeros_like(mask)) == components + loops + cavities


def test_a_mask_matches_itself_and_nothing_but_the_union_counts():
    mask = np.random.default_rng(4).random((12, 9, 10)) < 0.4
    counts = betti_matching_counts(mask, mask)
    assert all(matched == predicted == expected for matched, predicted, expected in counts.values())
    assert counts[0][0] > 5
    assert counts[1][0] > 5
    assert betti_matching_error(mask, mask) == 0
    other = mask ^ (np.random.default_rng(5).random(mask.shape) < 0.2)
    # More background around them moves nothing but the order of the components, which are matched in the union here.
    assert betti_matching_error(np.pad(mask, 2), np.pad(other, 2)) == betti_matching_error(mask, other)


def test_either_argument_may_come_first_and_memory_order_is_free():
    prediction, truth = random_pair(np.random.default_rng(6), (9, 12, 10))
    counts, swapped = betti_matching_counts(prediction, truth), betti_matching_counts(truth, prediction)
    assert counts == {k: (m, p, g) for k, (m, g, p) in swapped.items()}
    assert betti_matching_counts(np.asfortranarray(prediction), truth[::-1].copy()[::-1]) == counts


def ring(shape=(5, 9, 9), hole=(slice(3, 6), slice(3, 6))):
    mask = np.zeros(shape, bool)
    mask[2, 1:8, 1:8] = True
    mask[2][hole] = False
    return mask


def test_loops_match_where_they_are():
    elsewhere = ring(hole=(slice(2, 3), slice(2, 3)))
    assert betti_matching_counts(ring(), ring())[1] == (1, 1, 1)
    assert betti_matching_counts(ring(), elsewhere)[1] == (0, 1, 1)
    # The union of both still surrounds the smaller hole inside the larger one.
    assert betti_matching_counts(ring(), ring(hole=(slice(4, 5), slice(4, 5))))[1] == (1, 1, 1)
    assert betti_matching_error(ring(), elsewhere) == 2
    assert betti_matching_error(ring(), ring(hole=(slice(0, 0), slice(0, 0)))) == 1


def test_cavities_match_where_they_are():
    def shell(at):
        mask = np.ones((7, 7, 7), bool)
        mask[at] = False
        return mask

    here, there = shell((2, 2, 2)), shell((4, 4, 4))
    assert betti_matching_counts(here, here)[2] == (1, 1, 1)
    assert betti_matching_counts(here, there)[2] == (0, 1, 1)
    assert betti_matching_error(here, there) == 2


def boxes(*places):
    mask = np.zeros((9, 9, 9), bool)
    for place in places:
        mask[tuple(slice(start, start + 2) for start in place)] = True
    return mask


@pytest.mark.parametrize(
    ("prediction", "truth", "counts", "error"),
    [
        (boxes(), boxes(), (0, 0, 0), 0),
        (boxes(), boxes((1, 1, 1)), (0, 0, 0), 1),
        (boxes((1, 1, 1)), boxes(), (0, 0, 0), 1),
        (boxes(), boxes((1, 1, 1), (5, 5, 5)), (0, 0, 1), 2),
        (boxes((1, 1, 1)), boxes((5, 5, 5)), (0, 0, 0), 2),
        (boxes((1, 1, 1)), boxes((2, 1, 1)), (0, 0, 0), 0),
        (boxes((1, 1, 1), (5, 5, 5)), boxes((1, 1, 1)), (0, 1, 0), 1),
        (boxes((1, 1, 1), (5, 5, 5)), boxes((1, 1, 1), (5, 5, 5)), (1, 1, 1), 0),
        # Of two that are alone, each is taken for the essential one, and the third pair is matched.
        (boxes((1, 1, 1), (6, 6, 6)), boxes((1, 5, 1), (6, 6, 6)), (1, 1, 1), 2),
        (boxes((1, 1, 1), (6, 6, 6)), boxes((1, 1, 1), (6, 1, 6)), (0, 1, 1), 2),
    ],
)
def test_components_and_the_essential_class(prediction, truth, counts, error):
    assert betti_matching_counts(prediction, truth)[0] == counts
    assert betti_matching_counts(prediction, truth) == matching(prediction, truth)
    assert betti_matching_error(prediction, truth) == error


def test_wrong_input_names_the_argument():
    with pytest.raises(ShapeError, match=r"prediction: expected .* got 3-D uint8"):
        betti_matching_counts(np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 2), bool))
    with pytest.raises(ShapeError, match="ground_truth: expected the shape"):
        betti_matching_error(np.zeros((2, 2, 2), bool), np.zeros((2, 2, 3), bool))
