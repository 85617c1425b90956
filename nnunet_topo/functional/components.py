"""Numbers of the connected components of each structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

_MOST = np.iinfo(np.int16).max


def component_ids(
    onehot: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None, spacing: Sequence[float] | None = None
) -> NDArray[np.int16]:
    """Which connected component of its structure each voxel belongs to (26-connected; 8-connected in 2-D).

    Args:
        onehot: (K, X, Y[, Z]) bool, membership of each structure.
        valid: (X, Y[, Z]) bool or None; ignored voxels belong to no component and connect none.
        spacing: not looked at.

    Returns:
        (K, X, Y[, Z]) int16, 0 outside, components from 1 on, in the order of their first voxels. Beyond 32767
        components numbers start again at 1.
    """
    result = np.zeros(onehot.shape, dtype=np.int16)
    for structure, ids in zip(onehot, result, strict=True):
        inside = structure if valid is None else structure & valid
        # cc3d would be faster, but version 4.1 fails on some patterns in arrays of one row.
        found, number = label(inside, np.ones((3,) * inside.ndim))
        ids[...] = found if number <= _MOST else np.where(found > 0, (found - 1) % _MOST + 1, 0)
    return result
