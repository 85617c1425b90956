import numpy as np
import pytest
from scipy.ndimage import label

from nnunet_topo.functional.components import component_ids, label_components


@pytest.mark.parametrize("shape", [(7, 9, 11), (4, 4, 4), (3, 3, 3), (9, 1, 9), (1, 1, 12), (13, 8)])
def test_components_are_scipys_in_the_order_of_their_first_voxels(shape):
    random = np.random.default_rng(0)
    for density in (0.03, 0.1, 0.3, 0.6, 1.0):
        for mask in (random.random(shape) < density, (random.random(shape[::-1]) < density).T):
            expected, count = label(mask, np.ones((3,) * mask.ndim))
            ids, found = label_components(mask)
            assert found == count
            np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize("shape", [(3, 3, 3), (3, 5, 1), (4, 4, 4), (5, 5, 5), (3, 5, 7), (9, 5, 5)])
def test_as_many_components_as_fit_are_all_counted(shape):
    mask = np.zeros(shape, bool)
    mask[::2, ::2, ::2] = True
    assert label_components(mask)[1] == mask.sum()


def test_ignored_voxels_belong_to_no_component_and_connect_none():
    mask = np.ones((2, 5, 6, 7), bool)
    mask[1] = False
    valid = np.ones((5, 6, 7), bool)
    valid[2] = False
    ids = component_ids(mask, valid)
    assert ids.dtype == np.int16
    assert [ids[0, z].min() for z in range(5)] == [ids[0, z].max() for z in range(5)] == [1, 1, 0, 2, 2]
    assert not ids[1].any()


def test_numbers_start_again_beyond_what_int16_holds():
    mask = np.zeros((1, 1, 70001), bool)
    mask[..., ::2] = True
    ids = component_ids(mask)[0, 0, ::2]
    np.testing.assert_array_equal(ids, np.arange(35001) % 32767 + 1)


def test_masks_that_may_not_be_written_to():
    mask = np.zeros((5, 6, 7), bool)
    mask[::3, ::4, ::5] = True
    mask.flags.writeable = False
    assert label_components(mask)[1] == 8
