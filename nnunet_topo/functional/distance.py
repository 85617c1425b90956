"""Exact Euclidean distances, and the signed distance to the boundary of each structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_topo.errors import ShapeError

FAR = 60000.0
"""Distance stated where there is no other side to measure to; float16 can hold it and no band reaches it."""

_BLOCK = 1 << 17
"""Voxels worked on at once: few enough for a processor's cache, many enough for numpy."""


def signed_distance(
    onehot: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None, spacing: Sequence[float] | None = None
) -> NDArray[np.float16]:
    """Distance of each voxel centre to the nearest valid voxel centre on the other side of the structure's boundary.

    Exact Euclidean distances, see `distance_to`; training computes them in the data loading workers.

    Args:
        onehot: (K, X, Y[, Z]) bool, membership of each structure.
        valid: (X, Y[, Z]) bool or None. Ignored voxels are neither inside nor outside: no distance is measured to them.
        spacing: voxel edges > 0 in the order of the spatial axes, any unit; None means cubic voxels.

    Returns:
        (K, X, Y[, Z]) float16 in units of the smallest voxel edge: positive outside, negative inside, at least 1 in
        magnitude; +-60000 where the other side does not exist, +60000 in ignored voxels.

    Raises:
        ShapeError: `spacing` has not one value for each axis.
    """
    if spacing is None:
        spacing = (1.0,) * (onehot.ndim - 1)
    if len(spacing) != onehot.ndim - 1:
        raise ShapeError(
            f"spacing: expected {onehot.ndim - 1} values, one for each spatial axis, got {tuple(spacing)}. "
            "Pass the spacing in the order of the axes of the labels."
        )
    sampling = [edge / min(spacing) for edge in spacing]
    result = np.full(onehot.shape, FAR, dtype=np.float16)
    for structure, distance in zip(onehot, result, strict=True):
        inside = structure if valid is None else structure & valid
        outside = ~structure if valid is None else ~structure & valid
        if inside.any():
            np.copyto(distance, np.minimum(distance_to(inside, sampling), FAR), where=outside, casting="same_kind")
        to_outside = np.minimum(distance_to(outside, sampling), FAR)
        np.copyto(distance, -to_outside, where=inside, casting="same_kind")
    return result


def distance_to(mask: NDArray[np.bool_], sampling: Sequence[float]) -> NDArray[np.float32]:
    """Distance of each voxel centre to the nearest one of the mask, exact.

    Axis after axis takes the lower envelope of the parabolas over each line, many lines at a time, and stops at the
    largest distance still to be lowered. That is several times faster than scipy, which also finds out which voxel is
    the nearest.

    Args:
        mask: (X, Y[, Z]) bool.
        sampling: voxel edges > 0, one for each axis.

    Returns:
        Same shape; 0 in the mask, infinity everywhere if the mask is empty.

    Source:
        Saito and Toriwaki, New algorithms for Euclidean distance transformation of an n-dimensional digitized picture
        with applications, Pattern Recognition 1994.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    edges = [float(edge) for edge in sampling]
    reach = [edge * (n - 1) for edge, n in zip(edges, mask.shape, strict=True)]
    far = np.ceil(np.linalg.norm(reach)) + 1.0  # more than any distance
    small = all(edge == 1.0 for edge in edges) and far**2 + max(reach) ** 2 < 2**16
    dtype = np.uint16 if small else np.float32
    squares = _along_first_axis(mask, edges[0], far, dtype)
    np.multiply(squares, squares, out=squares)
    for axis in range(1, mask.ndim):
        lines = np.moveaxis(squares, axis, 0)
        count = max(1, _BLOCK * lines.shape[1] // lines.size)
        for start in range(0, lines.shape[1], count):
            block = lines[:, start : start + count]
            block[...] = _lower_envelope(np.ascontiguousarray(block), edges[axis])
    return np.sqrt(squares, dtype=np.float32)


def _along_first_axis(mask: NDArray[np.bool_], edge: float, far: float, dtype: type[Any]) -> NDArray[Any]:
    """Distance to the nearest voxel of the mask on the same line along the first axis, `far` where there is none."""
    distance = np.where(mask, dtype(0), dtype(far))
    step = dtype(edge)
    for planes in (distance, distance[::-1]):
        for i in range(1, len(planes)):
            np.minimum(planes[i], planes[i - 1] + step, out=planes[i])
    return distance


def _lower_envelope(lines: NDArray[Any], edge: float) -> NDArray[Any]:
    """Minimum over j of lines[j] + (edge * (i - j)) ** 2, for each i along the first axis."""
    lowest, raised = lines.copy(), np.empty_like(lines)
    for k in range(1, len(lines)):
        rise = (edge * k) ** 2
        if rise >= lowest.max():
            break
        np.add(lines, lines.dtype.type(rise), out=raised)
        np.minimum(lowest[k:], raised[:-k], out=lowest[k:])
        np.minimum(lowest[:-k], raised[k:], out=lowest[:-k])
    return lowest
