"""Voxels that keep the components of a structure apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_topo.functional.components import label_components

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
        components, count = label_components(inside)
        if count < 2:
            continue
        highest, lowest, total = _nearest(components, count)
        disputed = highest != total - lowest
        owned = ~disputed if valid is None else valid & ~disputed
        most, least = largest_neighbour(highest * owned), largest_neighbour(lowest * owned)
        # Where most > 0 an owned voxel is near.
        meeting = (disputed | (most != total - least)) & (most > 0) & ~inside
        barrier[...] = meeting if valid is None else meeting & valid
    return result


def _nearest(components: NDArray[np.integer], count: int) -> tuple[Ids, Ids, np.unsignedinteger]:
    """The highest number among the components nearest to each voxel, in steps between face neighbours, and the lowest.

    The lowest comes as total - number, the total last. One minimum over steps * (total + 1) + number settles the fewest
    steps and the lowest number among those; over steps * (total + 1) + total - number the highest.
    """
    total = (1 << (count + 1).bit_length()) - 1  # all bits set, and more than any number
    far = sum(components.shape) * (total + 1)  # more steps than any
    dtype = np.min_scalar_type(far + 2 * (total + 1)).type
    numbers = components.astype(dtype)
    keys = np.stack([dtype(total) - numbers, numbers]) + (numbers == 0) * dtype(far)
    for axis in range(1, keys.ndim):
        if axis == keys.ndim - 1:  # swapped with the axis before: steps from plane to plane are faster
            keys = np.ascontiguousarray(keys.swapaxes(-1, -2))
        planes = np.moveaxis(keys, min(axis, keys.ndim - 2), 0)
        for line in (planes, planes[::-1]):
            for i in range(1, len(line)):
                np.minimum(line[i], line[i - 1] + dtype(total + 1), out=line[i])
    ids = (~keys & dtype(total)).astype(np.min_scalar_type(total))
    highest, lowest = np.ascontiguousarray(ids.swapaxes(-1, -2))
    return highest, lowest, ids.dtype.type(total)


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
