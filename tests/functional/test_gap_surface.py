import cc3d
import numpy as np
import pytest

from nnunet_topo.functional.barrier import separation_barrier
from nnunet_topo.functional.gap_surface import gap_surface


def hairpin(gap):
    """One component: two sheets joined at one end."""
    mask = np.zeros((2 + gap + 2, 30, 24), bool)
    mask[:2], mask[-2:] = True, True
    mask[:, :2] = True
    return mask


@pytest.mark.parametrize("gap", [1, 2, 3, 6, 8])
def test_a_bridge_across_a_hairpin_has_to_cross_it(gap):
    mask = hairpin(gap)
    assert not separation_barrier(mask[None]).any()
    surface = gap_surface(mask[None])[0] > 0
    assert not (surface & mask).any()
    # Beyond the bend, what is left of the gap on one side must not reach the other.
    beyond = ~surface[:, 4:-1, 1:-1]
    parts = cc3d.connected_components(beyond, connectivity=26)
    assert not set(np.unique(parts[0])) & set(np.unique(parts[-1]))
    if gap > 2:
        assert surface[2:-2, 14, 12].sum() == 2 - gap % 2  # the middle alone


def test_a_wide_gap_within_one_component_is_none():
    mask = hairpin(12)
    assert not gap_surface(mask[None])[0][:, 14:, :].any()


def test_it_holds_the_barrier_and_turns_with_the_mask():
    random = np.random.default_rng(2)
    mask, valid = random.random((9, 12, 7)) > 0.9, random.random((9, 12, 7)) > 0.1
    surface = gap_surface(mask[None], valid)[0]
    assert surface.any()
    assert not (surface.astype(bool) & (mask & valid | ~valid)).any()
    assert (surface >= separation_barrier(mask[None], valid)[0]).all()
    turned = gap_surface(mask.transpose(2, 0, 1)[None, ::-1], valid.transpose(2, 0, 1)[::-1])[0]
    np.testing.assert_array_equal(turned[::-1].transpose(1, 2, 0), surface)


def test_a_lone_convex_body_has_no_gap():
    mask = np.zeros((2, 9, 9, 9), bool)
    mask[1, 3:6, 2:7, 4:5] = True
    assert not gap_surface(mask).any()
