"""Errors of topology, built one by one: where they are and what they are called."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_topo.errors import ConfigError, ShapeError
from nnunet_topo.metrics.betti import betti_numbers, euler_characteristic
from nnunet_topo.metrics.error_regions import error_regions


def sheets():
    """Two sheets of 3 voxels thickness with a gap of 4."""
    volume = np.zeros((20, 22, 24), dtype=np.bool_)
    volume[5:8, 2:20, 2:22] = True
    volume[12:15, 2:20, 2:22] = True
    return volume


def only(prediction, truth, **options):
    regions = error_regions(prediction, truth, **options)
    assert len(regions) == 1, [(region.kind, region.betti_change) for region in regions]
    return regions[0]


def test_equal_masks_and_moved_boundaries_have_no_errors():
    truth = sheets()
    prediction = np.roll(truth, 1, axis=0)
    prediction[5] |= truth[5]
    prediction[:, 2, :] = False
    assert error_regions(truth, truth) == []
    assert error_regions(prediction, truth) == []
    nothing = np.zeros((3, 4, 5), dtype=np.bool_)
    assert error_regions(nothing, nothing) == []


def test_a_hole_in_a_sheet():
    prediction = sheets()
    prediction[5:8, 9:12, 10:14] = False
    hole = only(prediction, sheets())
    assert (hole.kind, hole.added, hole.betti_change, hole.components) == ("hole", False, (0, 1, 0), 1)
    low, high = hole.voxels.min(axis=0), hole.voxels.max(axis=0)
    # A membrane across the opening, one voxel thick.
    assert low[0] == high[0]
    assert 5 <= low[0] < 8
    assert len(hole.voxels) == 3 * 4
    assert (low[1:].tolist(), high[1:].tolist()) == ([9, 10], [11, 13])
    assert tuple(hole.centre) in {tuple(voxel) for voxel in hole.voxels}


def test_a_bridge_between_two_sheets():
    prediction = sheets()
    prediction[8:12, 6:9, 15:18] = True
    bridge = only(prediction, sheets())
    assert (bridge.kind, bridge.added, bridge.betti_change, bridge.components) == ("bridge", True, (-1, 0, 0), 2)
    assert set(map(tuple, bridge.voxels[:, 1:])) == {(y, x) for y in range(6, 9) for x in range(15, 18)}
    assert np.ptp(bridge.voxels[:, 0]) == 0


def test_a_bridge_between_windings_of_one_sheet_is_one():
    truth = sheets()
    truth[5:15, 2:20, 2:4] = True  # joined at the far end: a U
    prediction = truth.copy()
    prediction[8:12, 8:11, 17:20] = True
    bridge = only(prediction, truth)
    assert (bridge.kind, bridge.added, bridge.components) == ("bridge", True, 1)


def test_a_false_loop_is_a_bridge():
    truth = np.zeros((9, 12, 12), dtype=np.bool_)
    truth[4, 2:10, 2] = truth[4, 2, 2:10] = truth[4, 2:10, 9] = True  # a U of vessels
    prediction = truth.copy()
    prediction[4, 9, 2:10] = True
    loop = only(prediction, truth)
    assert (loop.kind, loop.added, len(loop.voxels)) == ("bridge", True, 1)


def test_a_missing_and_an_extra_component_with_all_their_voxels():
    truth, prediction = np.zeros((2, 16, 17, 18), dtype=np.bool_)
    truth[2:5, 2:5, 2:5] = truth[9:12, 9:11, 3:9] = True
    prediction[2:5, 2:6, 2:5] = prediction[12:15, 2:5, 13:15] = True
    missing, extra = sorted(error_regions(prediction, truth), key=lambda region: region.added)
    assert (missing.kind, missing.betti_change, len(missing.voxels)) == ("missing", (-1, 0, 0), 3 * 2 * 6)
    assert (extra.kind, extra.betti_change, len(extra.voxels)) == ("extra", (1, 0, 0), 3 * 3 * 2)
    assert (missing.components, extra.components) == (1, 0)


def test_an_empty_and_a_full_prediction():
    nothing, everything = np.zeros_like(sheets()), np.ones_like(sheets())
    assert [region.kind for region in error_regions(nothing, sheets())] == ["missing", "missing"]
    filled = error_regions(everything, sheets())
    assert [region.kind for region in filled] == ["bridge"]
    assert filled[0].betti_change == (-1, 0, 0)


def test_a_break_in_a_vessel():
    truth = np.zeros((11, 12, 30), dtype=np.bool_)
    truth[4:7, 5:8, 2:28] = True
    prediction = truth.copy()
    prediction[:, :, 12:17] = False
    gap = only(prediction, truth)
    assert (gap.kind, gap.added, gap.betti_change) == ("break", False, (1, 0, 0))
    assert 12 <= gap.centre[2] < 17
    shorter = truth.copy()
    shorter[:, :, 20:] = False
    assert error_regions(shorter, truth) == []


def test_a_cavity_and_an_opening_that_is_filled():
    truth = np.zeros((13, 13, 13), dtype=np.bool_)
    truth[2:11, 2:11, 2:11] = True
    prediction = truth.copy()
    prediction[5:7, 6, 6] = False
    cavity = only(prediction, truth)
    assert (cavity.kind, cavity.added, cavity.betti_change) == ("cavity", False, (0, 0, 1))
    truth[:, 5:7, 5:8] = False  # a tunnel right through
    tunnel = only(np.where(truth, truth, sheets_like(truth)), truth)
    assert (tunnel.kind, tunnel.added, tunnel.betti_change) == ("filled", True, (0, -1, 0))


def sheets_like(truth):
    """A plate across the tunnel."""
    plate = np.zeros_like(truth)
    plate[6, 5:7, 5:8] = True
    return plate


def test_a_wall_with_a_hole_opens_its_cavity():
    truth = np.zeros((14, 14, 14), dtype=np.bool_)
    truth[2:12, 2:12, 2:12] = True
    truth[4:10, 4:10, 4:10] = False
    prediction = truth.copy()
    prediction[6:8, 6:8, 2:4] = False
    hole = only(prediction, truth)
    assert (hole.kind, hole.added) == ("hole", False)


def test_the_ignored_is_background_in_both():
    truth, ignore = sheets(), np.zeros_like(sheets())
    prediction = truth.copy()
    prediction[8:12, 6:9, 15:18] = True
    ignore[9:11] = True
    assert error_regions(prediction, truth, ignore=ignore) == []
    ignore[:] = True
    assert error_regions(prediction, truth, ignore=ignore) == []


def test_masks_that_may_not_be_written_to_are_compared():
    truth = sheets()
    prediction = np.zeros_like(truth)
    for mask in (truth, prediction):
        mask.setflags(write=False)
    assert {region.kind for region in error_regions(prediction, truth)} == {"missing"}


def test_two_dimensions():
    truth = np.zeros((14, 20), dtype=np.bool_)
    truth[2:6, 2:18] = truth[9:13, 2:18] = True
    prediction = truth.copy()
    prediction[3:5, 5:7] = False
    prediction[6:9, 12:14] = True
    found = {region.kind: region for region in error_regions(prediction, truth)}
    assert set(found) == {"hole", "bridge"}
    assert found["hole"].voxels.shape == (4, 2)
    assert found["bridge"].betti_change == (-1, 0, 0)
    assert found["bridge"].components == 2


def test_corners_join_only_with_26_neighbours():
    truth = np.zeros((8, 8, 8), dtype=np.bool_)
    truth[1:3, 1:3, 1:3] = truth[4:6, 4:6, 4:6] = True
    prediction = truth.copy()
    prediction[3, 3, 3] = True
    assert only(prediction, truth, connectivity=26).kind == "bridge"
    assert only(prediction, truth, connectivity=6).kind == "extra"


@pytest.mark.parametrize("connectivity", [26, 6])
def test_nothing_is_lost_in_random_volumes(connectivity):
    rng = np.random.default_rng(3)
    without = 0
    for trial in range(80):
        shape = tuple(rng.integers(2, 7, 3))
        prediction = rng.random(shape) < rng.random()
        truth = prediction ^ (rng.random(shape) < 0.2) if trial % 2 else rng.random(shape) < rng.random()
        regions = error_regions(prediction, truth, connectivity=connectivity)
        change = sum(b0 - b1 + b2 for b0, b1, b2 in (region.betti_change for region in regions))
        assert change == euler_characteristic(prediction, connectivity=connectivity) - euler_characteristic(
            truth, connectivity=connectivity
        )
        if not regions:
            without += 1
            assert betti_numbers(prediction, connectivity=connectivity) == betti_numbers(
                truth, connectivity=connectivity
            )
        for region in regions:
            here = tuple(region.voxels.T)
            assert (prediction[here] if region.added else truth[here]).all()
            assert not (truth[here] if region.added else prediction[here]).any()
    assert without >= 3


def test_wrong_arguments_are_refused():
    mask = np.zeros((4, 5, 6), dtype=np.bool_)
    with pytest.raises(ShapeError, match="ground_truth"):
        error_regions(mask, mask[:, :, 1:])
    with pytest.raises(ShapeError, match="prediction"):
        error_regions(mask.astype(int), mask)
    with pytest.raises(ShapeError, match="ignore"):
        error_regions(mask, mask, ignore=mask[1:])
    with pytest.raises(ConfigError, match="connectivity"):
        error_regions(mask, mask, connectivity=8)


@pytest.mark.parametrize("shape", [(1, 1, 7), (7, 1, 1), (1, 7)])
def test_a_single_row_of_voxels(shape):
    label = np.ones(shape, bool)
    prediction = label.copy()
    prediction.reshape(-1)[[1, 3, 5]] = False
    assert {region.kind for region in error_regions(prediction, label)} == {"break"}
