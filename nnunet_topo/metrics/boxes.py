"""The part of an array that holds something: everything else need not be computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def foreground_box(*masks: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box that holds the foreground of all masks.

    Args:
        masks: bool arrays of one shape, any number of axes.

    Returns:
        A slice for each axis; None if all masks are empty.
    """
    box = []
    for axis in range(masks[0].ndim):
        others = tuple(other for other in range(masks[0].ndim) if other != axis)
        occupied = np.flatnonzero(np.logical_or.reduce([mask.any(axis=others) for mask in masks]))
        if not occupied.size:
            return None
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)
