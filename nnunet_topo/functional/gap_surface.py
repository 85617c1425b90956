"""Where a structure could grow together with itself or another component."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnunet_topo.functional.barrier import separation_barrier
from nnunet_topo.functional.thinning import medial_surface

_REACH = 4
"""Half the width in voxels up to which a gap is narrow."""


def gap_surface(
    onehot: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None, spacing: Sequence[float] | None = None
) -> NDArray[np.uint8]:
    """Background voxels in the middle of a structure's narrow gaps, and those that keep its components apart.

    A gap of up to 8 voxels between two parts, of one component or of two, is what a closing with a cube of 9 voxels
    fills; its medial surface is in the way of every bridge across it. `separation_barrier` adds what stands between
    components farther apart.

    Args:
        onehot: (K, X, Y[, Z]) bool, membership of each structure.
        valid: (X, Y[, Z]) bool or None. Ignored voxels are in no structure and in no gap.
        spacing: not looked at.

    Returns:
        (K, X, Y[, Z]) uint8, 1 on the surface and 0 elsewhere.
    """
    result = separation_barrier(onehot, valid, spacing)
    for structure, surface in zip(onehot, result, strict=True):
        inside = structure if valid is None else structure & valid
        gaps = _closed(inside) & ~inside
        surface |= medial_surface(gaps if valid is None else gaps & valid).astype(np.uint8)
    return result


def _closed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with narrow gaps filled; the outside of the patch is background."""
    wide = _windows(np.pad(mask, 2 * _REACH), np.logical_or)
    return _windows(wide, np.logical_and)


def _windows(mask: NDArray[np.bool_], combined: np.ufunc) -> NDArray[np.bool_]:
    """What any or all voxels are in each cube of 2 * `_REACH` + 1 voxels that fits in; twice as many at a time."""
    for axis in range(mask.ndim):
        lines, width = np.moveaxis(mask, axis, 0), 1
        while width <= 2 * _REACH:
            step = min(width, 2 * _REACH + 1 - width)
            lines, width = combined(lines[:-step], lines[step:]), width + step
        mask = np.moveaxis(lines, 0, axis)
    return mask
