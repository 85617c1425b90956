"""Along which axes a mask is elongated, voxel by voxel."""

from __future__ import annotations

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from nnunet_topo.functional.barrier import largest_neighbour

_ELONGATION = 2  # times as long: whole number


def not_elongated(mask: NDArray[np.bool_], surface: bool) -> list[NDArray[np.bool_]]:
    """For every axis the voxels of a mask at which it is not elongated along that axis.

    Args:
        mask: (X, Y) or (X, Y, Z) bool.
        surface: elongated is what is more than twice as long as along the shortest axis; else, in 3-D, as along the
            middle one of the three.

    Returns:
        One array for each axis, same shape, bool.
    """
    extents = [_extent(mask, axis) for axis in range(mask.ndim)]
    shortest = reduce(np.minimum, extents)
    if surface or mask.ndim == 2:
        reference = shortest
    else:  # the middle one of three
        larger = np.maximum(extents[0], extents[1])
        reference = np.maximum(np.minimum(extents[0], extents[1]), np.minimum(larger, extents[2]))
    return [((extent + 1) // _ELONGATION <= reference) & mask for extent in extents]


def _extent(mask: NDArray[np.bool_], axis: int) -> NDArray[np.unsignedinteger]:
    """Length of the run of foreground along `axis` that a voxel or any neighbour lies in, the longest one.

    The neighbours count because a bump is not a branch: it has the extent of the surface it sits on.
    """
    last = axis == mask.ndim - 1
    # To swap twice is several times faster than to move the last axis to the front.
    lines = np.ascontiguousarray(mask.swapaxes(-1, -2)) if last else mask
    lines = np.ascontiguousarray(lines.swapaxes(0, axis - last))
    inside = lines.astype(np.uint8 if max(mask.shape) < 255 else np.uint16)
    runs = inside.copy()
    for i in range(1, len(runs)):
        runs[i] += runs[i - 1] * inside[i]
    for i in range(len(runs) - 2, -1, -1):
        np.maximum(runs[i], runs[i + 1] * inside[i], out=runs[i])
    longest = np.ascontiguousarray(largest_neighbour(runs).swapaxes(0, axis - last))
    return np.ascontiguousarray(longest.swapaxes(-1, -2)) if last else longest
