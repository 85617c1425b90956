import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from nnunet_topo.errors import ShapeError
from nnunet_topo.functional.distance import FAR, distance_to, signed_distance


def brute_force(inside, valid, spacing):
    """Every voxel against every valid voxel of the other side."""
    unit = np.asarray(spacing) / min(spacing)
    positions = np.stack(np.meshgrid(*map(np.arange, inside.shape), indexing="ij"), -1) * unit
    result = np.full(inside.shape, FAR)
    for voxel in itertools.product(*map(range, inside.shape)):
        other = positions[valid & (inside != inside[voxel])]
        sign = -1 if inside[voxel] else 1
        if not valid[voxel]:
            continue
        result[voxel] = sign * (np.sqrt(((other - positions[voxel]) ** 2).sum(-1)).min() if len(other) else FAR)
    return result


@pytest.mark.parametrize(("shape", "spacing"), [((5, 7, 9), (0.5, 1, 3)), ((8, 6), (3, 1)), ((5, 5, 4), (2, 2, 2))])
@pytest.mark.parametrize("ignored", [0.0, 0.3])
def test_equals_brute_force(shape, spacing, ignored):
    random = np.random.default_rng(0)
    onehot = random.random((2, *shape)) > 0.8
    valid = random.random(shape) >= ignored
    expected = np.stack([brute_force(inside, valid, spacing) for inside in onehot])
    result = signed_distance(onehot, valid, spacing)
    assert result.dtype == np.float16
    np.testing.assert_allclose(result.astype(float), expected, rtol=1e-3)


def test_no_mask_means_all_valid_and_no_spacing_means_cubes():
    onehot = np.random.default_rng(0).random((1, 5, 6, 4)) > 0.7
    full = signed_distance(onehot, np.ones(onehot.shape[1:], bool), (7, 7, 7))
    np.testing.assert_array_equal(signed_distance(onehot), full)


def test_no_other_side_is_far():
    onehot = np.stack([np.zeros((3, 4), bool), np.ones((3, 4), bool)])
    distance = signed_distance(onehot).astype(float)
    assert (distance[0] > 5e4).all()
    assert (distance[1] < -5e4).all()
    assert np.isfinite(distance).all()


def test_ignored_content_changes_nothing():
    random = np.random.default_rng(0)
    onehot, valid = random.random((1, 6, 7)) > 0.5, random.random((6, 7)) > 0.4
    np.testing.assert_array_equal(signed_distance(onehot, valid), signed_distance(onehot ^ ~valid, valid))


def test_spacing_of_another_dimension_is_refused():
    with pytest.raises(ShapeError, match="spacing: expected 2 values"):
        signed_distance(np.zeros((1, 3, 3), bool), spacing=(1, 1, 1))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_distance_equals_scipy(data):
    shape = data.draw(array_shapes(min_dims=2, max_dims=3, max_side=12))
    sampling = data.draw(st.sampled_from([(1, 1, 1), (0.5, 1, 3), (2, 0.7, 1)]))[: len(shape)]
    mask = data.draw(arrays(bool, shape, elements=st.sampled_from([False] * 9 + [True]), fill=st.nothing()))
    if not mask.any():
        assert np.isinf(distance_to(mask, sampling)).all()
        return
    expected = ndimage.distance_transform_edt(~mask, sampling=sampling)
    np.testing.assert_allclose(distance_to(mask, sampling), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [128, 150])
def test_distances_across_a_whole_patch_do_not_overflow(n):
    """Small patches are computed in 16-bit integers: the largest squared distance comes close to their limit."""
    for corner in ((0, 0, 0), (n - 1, 0, 5)):
        mask = np.zeros((n, n, 8) if n > 128 else (n, n, n), bool)
        mask[corner] = True
        steps = [np.abs(np.arange(size) - own) for size, own in zip(mask.shape, corner, strict=True)]
        expected = np.sqrt(sum(np.square(step, dtype=float) for step in np.meshgrid(*steps, indexing="ij")))
        np.testing.assert_allclose(distance_to(mask, (1, 1, 1)), expected, rtol=1e-6)


def test_the_mask_is_not_changed():
    mask = np.random.default_rng(0).random((5, 6, 7)) > 0.8
    before = mask.copy()
    distance_to(mask, (1, 1, 1))
    np.testing.assert_array_equal(mask, before)
