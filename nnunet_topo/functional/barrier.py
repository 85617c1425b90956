"""Voxels that keep the components of a structure apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

Ids = NDArray[np.unsignedinteger]


def separation_barrier(
    onehot: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None, spacing: Sequence[float] | None = None
) -> NDArray[np.uint8]:
    """Background voxels at which the territories of two components of a structure meet.

    Every voxel belongs to the territory of the nearest component, counted in steps between face neighbours; voxels as
    near to another one are no man's land. The barrier is the rim of no man's land, and where two territories touch
    without any, the voxels on both sides. Every path of neighbouring voxels (26; in 2-D 8) from one component to
    another crosses it: while all of it is background, the two cannot have merged. It does not depend on flips or
    permutations of the axes. For bridges between parts of one component see `gap_surface`.

    Args:
        onehot: (K, X, Y[, Z]) bool, membership of each structure.
        valid: (X, Y[, Z]) bool or None. Ignored voxels belong to no component and to no barrier.
        spacing: not looked at; touching sheets are apart by a voxel or two, whatever its edges.

    Returns:
        (K, X, Y[, Z]) uint8, 1 on the barrier and 0 elsewhere; all 0 for structures with fewer than two components.
    """
    result = np.zeros(onehot.shape, dtype=np.uint8)
    for structure, barrier in zip(onehot, result, strict=True):
        inside = structure if valid is None else structure & valid
        # cc3d would be faster, but version 4.1 fails on some patterns in arrays of one row.
        components, count = label(inside, np.ones((3,) * inside.ndim))
        if count < 2:
            continue
        lowest, highest = _nearest(components, count)
        disputed = lowest != highest
        counted = np.ones_like(inside) if valid is None else valid
        owned = counted & ~disputed
        most = largest_neighbour(np.where(owned, highest, 0))
        least = count + 1 - largest_neighbour(np.where(owned, count + 1 - lowest, 0))
        # Where most > 0 an owned voxel is near.
        barrier[...] = np.where(disputed, most > 0, most != least) & counted & ~inside
    return result


def _nearest(components: NDArray[np.integer], count: int) -> tuple[Ids, Ids]:
    """The lowest and the highest number among the components nearest to each voxel, in steps between face neighbours.

    One minimum over steps * base + number settles both: the fewest steps, and the lowest number among those.
    """
    base = 1 << (count + 1).bit_length()
    far = (sum(components.shape) + 1) * base
    dtype = np.uint32 if 2 * far < 2**32 else np.uint64
    keys = np.stack([components, base - 1 - components]).astype(dtype)
    keys[:, components == 0] = far
    for axis in range(1, keys.ndim):
        planes = np.ascontiguousarray(np.moveaxis(keys, axis, 0))
        for line in (planes, planes[::-1]):
            for i in range(1, len(line)):
                np.minimum(line[i], line[i - 1] + dtype(base), out=line[i])
        keys = np.moveaxis(planes, 0, axis)
    numbers = (np.ascontiguousarray(keys) & dtype(base - 1)).astype(np.uint16 if base < 2**16 else dtype)
    return numbers[0], numbers.dtype.type(base - 1) - numbers[1]


def largest_neighbour(values: NDArray[Any]) -> NDArray[Any]:
    """Maximum over each voxel and its 26 (2-D: 8) neighbours; several times faster than scipy's filter.

    Args:
        values: (X, Y[, Z]).

    Returns:
        Same shape and dtype.
    """
    for axis in range(values.ndim):
        result = values.copy()
        first = (slice(None),) * axis + (slice(None, -1),)
        last = (slice(None),) * axis + (slice(1, None),)
        np.maximum(result[first], values[last], out=result[first])
        np.maximum(result[last], values[first], out=result[last])
        values = result
    return values
