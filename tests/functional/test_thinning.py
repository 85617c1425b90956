import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import distance_transform_edt, gaussian_filter, label
from skimage.measure import euler_number

from nnunet_topo.errors import ShapeError
from nnunet_topo.functional import thinning
from nnunet_topo.functional.thinning import medial_surface, skeleton

THIN = [skeleton, medial_surface]


def betti(mask):
    """Components, tunnels and cavities, the foreground 26-connected (8-connected in 2-D)."""
    mask = mask[None] if mask.ndim == 2 else mask
    components = label(mask, np.ones((3, 3, 3)))[1]
    cavities = label(np.pad(~mask, 1, constant_values=True))[1] - 1
    return components, components + cavities - int(euler_number(np.pad(mask, 1), connectivity=3)), cavities


def rod(width, length=24, axis=2):
    mask = np.zeros((width + 4, width + 4, length + 4), bool)
    mask[2 : 2 + width, 2 : 2 + width, 2 : 2 + length] = True
    return np.moveaxis(mask, 2, axis)


def blob(seed, shape=(14, 11, 17)):
    return gaussian_filter(np.random.default_rng(seed).random(shape), 1.2) > 0.5


@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("axis", range(3))
def test_bars_of_any_width_keep_their_whole_length(width, axis):
    mask = rod(width, axis=axis)
    thin = skeleton(mask)
    others = tuple(other for other in range(3) if other != axis)
    assert (thin.sum(others)[2:-2] == (1 if width % 2 else 4)).all()  # the middle voxel, or the four around it
    single = skeleton(mask, one_voxel=True)
    assert (single.sum(others)[2:-2] == 1).all()
    assert betti(single) == (1, 0, 0)


@pytest.mark.parametrize("edge", range(1, 6))
def test_cubes_leave_their_centre(edge):
    mask = np.pad(np.ones((edge,) * 3, bool), 1)
    assert skeleton(mask).sum() == (1 if edge % 2 else 8)
    assert skeleton(mask, one_voxel=True).sum() == 1


@pytest.mark.parametrize("width", [3, 4])
def test_a_rod_into_a_blob_keeps_its_skeleton(width):
    mask = np.zeros((21, 21, 46), bool)
    mask[2:19, 2:19, 2:19] = True
    mask[8 : 8 + width, 8 : 8 + width, 19:44] = True
    assert skeleton(mask)[:, :, 19:44].any((0, 1)).all()


@pytest.mark.parametrize("width", [2, 4, 5])
def test_both_arms_of_an_angle_keep_their_skeletons(width):
    mask = np.zeros((30, 30, width + 2), bool)
    mask[2:28, 2 : 2 + width, 1:-1] = True
    mask[2 : 2 + width, 2:28, 1:-1] = True
    thin = skeleton(mask)
    assert thin[8:28].any((1, 2)).all()
    assert thin[:, 8:28].any((0, 2)).all()


@pytest.mark.parametrize("seed", range(6))
def test_no_branch_is_lost(seed):
    """Every voxel of a tube, straight and oblique, lies within its radius plus two and a half of the skeleton."""
    rng = np.random.default_rng(seed)
    shape, radius = (40, 36, 44), rng.uniform(1.0, 4.0)
    axis = np.ones(shape, bool)
    start, end = rng.uniform(6, 30, 3), rng.uniform(6, 30, 3)
    for t in np.linspace(0, 1, 200):
        axis[tuple(np.round(start + t * (end - start)).astype(int))] = False
    mask = distance_transform_edt(axis) <= radius
    thin = skeleton(mask)
    assert distance_transform_edt(~thin)[mask].max() <= radius + 2.5
    assert betti(thin) == betti(mask)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("thickness", "layers"), [(1, 1), (2, 2), (3, 1), (4, 2), (5, 1)])
def test_a_flat_sheet_keeps_its_middle_to_the_rim_whatever_its_orientation(axis, thickness, layers):
    mask = np.zeros((50, 50, 50), bool)
    box = [slice(5, 45)] * 3
    box[axis] = slice(20, 20 + thickness)
    mask[tuple(box)] = True
    thin = medial_surface(mask)
    assert thin.sum() == layers * 1600
    assert (thin.sum(axis)[5:45, 5:45] == layers).all()
    assert medial_surface(mask, one_voxel=True).sum() == 1600


def test_a_wavy_rough_sheet_becomes_thin_and_covers_all_of_it():
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(np.arange(48), np.arange(40), indexing="ij")
    height = 20 + 5 * np.sin(y / 9) + 3 * np.cos(x / 7)
    z = np.arange(40)[:, None, None]
    mask = (z >= height + rng.integers(-1, 1, height.shape)) & (z <= height + 3 + rng.integers(0, 2, height.shape))
    thin = medial_surface(mask)
    assert thin.any(0).mean() > 0.95
    assert thin.sum() < 0.6 * mask.sum()
    assert distance_transform_edt(~thin)[mask].max() <= 3


@pytest.mark.parametrize("thin", THIN)
@pytest.mark.parametrize("one_voxel", [False, True])
@settings(max_examples=60, deadline=None)
@given(mask=st.one_of(arrays(bool, array_shapes(min_dims=2, max_dims=3, max_side=9)), st.integers(0, 200).map(blob)))
def test_any_mask_keeps_its_topology(thin, one_voxel, mask):
    result = thin(mask, one_voxel=one_voxel)
    assert not (result & ~mask).any()
    assert betti(result) == betti(mask)


@pytest.mark.parametrize("thin", THIN)
@pytest.mark.parametrize("seed", range(3))
def test_all_48_orientations_give_the_same_result(thin, seed):
    mask = blob(seed) if seed else np.random.default_rng(0).random((9, 12, 10)) > 0.4
    expected = thin(mask)
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            turned, its_skeleton = (a.transpose(axes)[:: flips[0], :: flips[1], :: flips[2]] for a in (mask, expected))
            np.testing.assert_array_equal(thin(turned), its_skeleton)


@pytest.mark.parametrize("thin", THIN)
@pytest.mark.parametrize("length", [15, 16, 33])
def test_words_picked_one_by_one_or_all_at_once_are_the_same(thin, length, monkeypatch):
    mask = blob(3, (14, 11, length))
    expected = thin(mask), thin(mask, one_voxel=True)
    for dense in (0, 10**6):
        monkeypatch.setattr(thinning, "_DENSE", dense)
        np.testing.assert_array_equal(thin(mask), expected[0])
        np.testing.assert_array_equal(thin(mask, one_voxel=True), expected[1])


@pytest.mark.parametrize("thin", THIN)
def test_a_slice_is_a_volume_of_one_layer(thin):
    mask = gaussian_filter(np.random.default_rng(1).random((30, 25)), 1.5) > 0.5
    result = thin(mask)
    assert betti(result) == betti(mask)
    np.testing.assert_array_equal(thin(mask.T), result.T)
    assert result.sum() < 0.6 * mask.sum()


def test_the_crop_border_is_background():
    band = np.zeros((40, 30), bool)
    band[:, :10] = True
    assert np.flatnonzero(skeleton(band).any(0)).tolist() == [4, 5]


def test_each_component_keeps_at_least_one_voxel():
    mask = np.zeros((40, 40, 40), bool)
    for i, edge in enumerate([1, 2, 3, 4, 5]):
        mask[7 * i + 1 : 7 * i + 1 + edge, 2 : 2 + edge, 3 : 3 + edge] = True
    for thin in THIN:
        assert betti(thin(mask)) == (5, 0, 0)


@pytest.mark.parametrize("shape", [(3, 4, 5), (6, 5), (1, 1), (1, 7, 1)])
def test_empty_and_full_masks(shape):
    for thin in THIN:
        assert not thin(np.zeros(shape, bool)).any()
        assert thin(np.ones(shape, bool)).any()


def test_the_input_is_not_changed_and_other_numbers_of_axes_are_refused():
    mask = blob(0)
    before = mask.copy()
    skeleton(mask, one_voxel=True)
    np.testing.assert_array_equal(mask, before)
    with pytest.raises(ShapeError, match="2 or 3 axes"):
        skeleton(np.ones((2, 2, 2, 2), bool))


def test_axes_longer_than_a_byte_can_count():
    mask = np.zeros((3, 3, 600), bool)
    mask[:, :, 10:590] = True
    assert skeleton(mask).sum() == 580


def test_faces_are_found_connected_in_every_pattern():
    """All 2^18 patterns of background at the faces and edges of a voxel, against flooding until nothing changes."""
    n = 1 << 18
    bits = [((np.arange(n) >> k) & 1).astype(np.uint8) for k in range(18)]
    pairs = [(i, j) for i, j in itertools.combinations(range(6), 2) if i // 2 != j // 2]
    edges = {(i, j): bits[i] & bits[j] & own for (i, j), own in zip(pairs, bits[6:], strict=True)}
    number = [np.where(bits[i], i + 1, 0) for i in range(6)]
    for _ in range(6):
        for (i, j), edge in edges.items():
            larger = np.maximum(number[i], number[j])
            number[i], number[j] = np.where(edge, larger, number[i]), np.where(edge, larger, number[j])
    highest = np.max(number, 0)
    expected = np.any([(own > 0) & (own != highest) for own in number], 0)
    np.testing.assert_array_equal(thinning._apart(bits[:6], edges) > 0, expected)
