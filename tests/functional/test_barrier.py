import cc3d
import numpy as np
import pytest
from scipy.ndimage import label

from nnunet_topo.functional.barrier import separation_barrier


def random_components(random, shape):
    """A few boxes with random ignored voxels around them."""
    mask = np.zeros(shape, bool)
    for _ in range(random.integers(2, 7)):
        low = [random.integers(0, n) for n in shape]
        box = tuple(slice(a, a + random.integers(1, 5)) for a in low)
        mask[box] = True
    return mask


@pytest.mark.parametrize("shape", [(9, 11, 14), (17, 23), (5, 40, 3), (1, 1, 12)])
@pytest.mark.parametrize("ignored", [0.0, 0.2])
def test_no_path_from_one_component_to_another_avoids_it(shape, ignored):
    random = np.random.default_rng(3)
    connectivity = 26 if len(shape) == 3 else 8
    seen = 0
    for _ in range(40):
        mask = random_components(random, shape)
        valid = random.random(shape) >= ignored if ignored else None
        barrier = separation_barrier(mask[None], valid, (3, 1, 0.5)[: len(shape)])[0] > 0
        inside = mask if valid is None else mask & valid
        assert not (barrier & inside).any()
        if valid is not None:
            assert not (barrier & ~valid).any()
            continue  # a path through unknown voxels may lead around it
        components, count = cc3d.connected_components(inside, connectivity=connectivity, return_N=True)
        free = cc3d.connected_components(~barrier, connectivity=connectivity)
        reached = {(int(a), int(b)) for a, b in zip(free[inside], components[inside], strict=True)}
        assert len({a for a, _ in reached}) == len(reached) == count
        seen += count >= 2
    assert ignored or seen > 5


def test_one_voxel_between_two_sheets_is_all_of_it():
    mask = np.zeros((1, 8, 9, 10), bool)
    mask[0, 2], mask[0, 4] = True, True
    expected = np.zeros(mask.shape)
    expected[0, 3] = 1
    np.testing.assert_array_equal(separation_barrier(mask), expected)


def test_a_far_bridge_has_to_cross_it_too():
    mask = np.zeros((1, 64, 9, 9), bool)
    mask[0, 2:4], mask[0, 60:62] = True, True
    crossed = separation_barrier(mask)[0].max(axis=0)
    assert (crossed == 1).all()


def test_one_component_and_none_have_no_barrier():
    mask = np.zeros((2, 5, 6, 7), bool)
    mask[1, 2:4, 2:4, 2:4] = True
    assert not separation_barrier(mask).any()


def test_structures_do_not_keep_each_other_apart():
    mask = np.zeros((2, 9, 9), bool)
    mask[0, 2], mask[1, 4] = True, True
    assert not separation_barrier(mask).any()


@pytest.mark.parametrize("shape", [(20, 16, 12), (9, 14)])
def test_flips_and_permutations_move_it_along(shape):
    random = np.random.default_rng(1)
    seen = 0
    for _ in range(10):
        mask, valid = random_components(random, shape), random.random(shape) > 0.1
        barrier = separation_barrier(mask[None], valid)[0]
        for axis in range(len(shape)):
            flipped = separation_barrier(np.flip(mask, axis)[None], np.flip(valid, axis))[0]
            np.testing.assert_array_equal(np.flip(flipped, axis), barrier)
        order = np.roll(range(len(shape)), 1)
        turned = separation_barrier(mask.transpose(order)[None], valid.transpose(order))[0]
        np.testing.assert_array_equal(turned, barrier.transpose(order))
        seen += barrier.any()
    assert seen > 5


def test_equals_the_slow_definition():
    random = np.random.default_rng(5)
    for shape in ((6, 7, 8), (9, 12)):
        mask, valid = random.random(shape) > 0.9, random.random(shape) > 0.2
        np.testing.assert_array_equal(separation_barrier(mask[None], valid)[0], slow_barrier(mask & valid, valid))


def slow_barrier(inside, valid):
    """Voxel by voxel, by distances to every voxel of every component."""
    components, count = label(inside, np.ones((3,) * inside.ndim))
    where = {i: np.argwhere(components == i) for i in range(1, count + 1)}
    owners = np.zeros(inside.shape, dtype=object)
    for voxel in np.ndindex(inside.shape):
        steps = {i: np.abs(own - voxel).sum(1).min() for i, own in where.items()}
        owners[voxel] = {i for i, n in steps.items() if n == min(steps.values())}
    result = np.zeros(inside.shape)
    for voxel in zip(*np.nonzero(valid & ~inside), strict=True):
        box = tuple(slice(max(v - 1, 0), v + 2) for v in voxel)
        near = {tuple(who) for who in owners[box][valid[box]] if len(who) == 1}
        own = owners[voxel]
        result[voxel] = bool(near) if len(own) > 1 else near != {tuple(own)}
    return result


def test_many_components_in_a_long_patch():
    mask = np.zeros((1, 1, 39999), bool)
    mask[0, 0, ::2] = True
    np.testing.assert_array_equal(separation_barrier(mask)[0], ~mask[0])
