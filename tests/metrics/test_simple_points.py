"""Simple points against Betti numbers before and after, and deformation that keeps them."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_topo.metrics.betti import betti_numbers
from nnunet_topo.metrics.simple_points import OFFSETS, homotopic_towards, is_simple


def as_bits(block):
    return np.uint32(sum(1 << bit for bit, offset in enumerate(OFFSETS) if block[tuple(np.add(offset, 1))]))


@pytest.mark.parametrize("connectivity", [26, 6])
def test_a_voxel_is_simple_when_changing_it_changes_no_betti_number(connectivity):
    rng = np.random.default_rng(0)
    blocks = rng.random((600, 3, 3, 3)) < rng.random((600, 1, 1, 1))
    found = is_simple(np.array([as_bits(block) for block in blocks]), connectivity=connectivity)
    for block, simple in zip(blocks, found, strict=True):
        # Around what is counted must be the other: background for 26 neighbours, foreground for 6.
        around = np.pad(block, 1, constant_values=connectivity == 6)
        numbers = []
        for value in (False, True):
            around[2, 2, 2] = value
            numbers.append(betti_numbers(around, connectivity=connectivity))
        assert simple == (numbers[0] == numbers[1]), block.astype(int)
    assert 60 < found.sum() < 540


@pytest.mark.parametrize("connectivity", [26, 6])
def test_deforming_keeps_the_betti_numbers_and_changes_only_what_differs(connectivity):
    rng = np.random.default_rng(1)
    for _ in range(40):
        shape = tuple(rng.integers(1, 8, 3))
        start, target = (rng.random(shape) < share for share in rng.random(2))
        kept = start.copy()
        deformed = homotopic_towards(start, target, connectivity=connectivity)
        assert betti_numbers(np.ascontiguousarray(deformed), connectivity=connectivity) == betti_numbers(
            start, connectivity=connectivity
        )
        assert not ((deformed != start) & (start == target)).any()
        np.testing.assert_array_equal(start, kept)


def test_a_moved_boundary_is_reached_whole():
    start, target = np.zeros((2, 9, 11, 13), dtype=np.bool_)
    start[2:6, 2:7, 3:9] = True
    target[3:8, 3:9, 5:12] = True
    np.testing.assert_array_equal(homotopic_towards(start, target, connectivity=26), target)
