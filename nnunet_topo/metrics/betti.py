"""Betti numbers of binary masks: components, loops or tunnels, cavities."""

from __future__ import annotations

from itertools import combinations
from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray

from nnunet_topo.errors import ConfigError, ShapeError

# Connectivity of the background that belongs to each connectivity of the foreground: only such a pair obeys
# Alexander duality, i.e. lets cavities be counted as components of the background.
Connectivity = Literal[26, 6, 8, 4]
DUAL_CONNECTIVITY: dict[int, dict[int, Connectivity]] = {2: {8: 4, 4: 8}, 3: {26: 6, 6: 26}}


def betti_numbers(mask: NDArray[np.bool_], *, connectivity: int | None = None) -> tuple[int, int, int]:
    """Numbers of components, of loops (2-D: holes; 3-D: tunnels and handles) and of cavities.

    Everything outside the array is background: a tube that runs through the whole volume has no loop, and a hole
    that reaches the border is none. Betti numbers count, they do not locate: two masks with equal numbers may err
    in different places (Betti matching tells these apart).

    Args:
        mask: (X, Y, Z) or (X, Y) bool, the foreground.
        connectivity: of the foreground; 26 or 6 in 3-D, 8 or 4 in 2-D. The background has the dual one. None means
            26 or 8, the larger one.

    Returns:
        (b0, b1, b2), each >= 0. In 2-D b2 is always 0. An empty mask has (0, 0, 0).

    Raises:
        ShapeError: the mask is not a 2-D or 3-D boolean array.
        ConfigError: the connectivity does not exist in that number of dimensions.
    """
    check_mask("mask", mask)
    chosen = foreground_connectivity(mask.ndim, connectivity)
    dual = DUAL_CONNECTIVITY[mask.ndim][chosen]
    padded = np.pad(mask, 1)
    components = _count_components(padded, chosen)
    enclosed = _count_components(~padded, dual) - 1
    if mask.ndim == 2:
        return components, enclosed, 0
    loops = components + enclosed - euler_characteristic(mask, connectivity=chosen)
    return components, loops, enclosed


def betti_errors(
    prediction: NDArray[np.bool_],
    ground_truth: NDArray[np.bool_],
    *,
    connectivity: int | None = None,
    ignore: NDArray[np.bool_] | None = None,
) -> tuple[int, int, int]:
    """Absolute differences of the Betti numbers of two masks.

    Args:
        prediction: (X, Y, Z) or (X, Y) bool.
        ground_truth: bool, same shape.
        connectivity: as in `betti_numbers`.
        ignore: bool, same shape: these voxels become background in both masks before counting, so an ignored blob
            inside a sheet opens the same loop in both and costs nothing.

    Returns:
        (error of b0, error of b1, error of b2), each >= 0; 0 does not prove that the masks agree.

    Raises:
        ShapeError: shapes differ or an array is not boolean.
        ConfigError: as in `betti_numbers`.
    """
    check_mask("prediction", prediction)
    check_same_shape("ground_truth", ground_truth, prediction)
    if ignore is not None:
        check_same_shape("ignore", ignore, prediction)
        prediction, ground_truth = prediction & ~ignore, ground_truth & ~ignore
    predicted = betti_numbers(prediction, connectivity=connectivity)
    expected = betti_numbers(ground_truth, connectivity=connectivity)
    return abs(predicted[0] - expected[0]), abs(predicted[1] - expected[1]), abs(predicted[2] - expected[2])


def euler_characteristic(mask: NDArray[np.bool_], *, connectivity: int | None = None) -> int:
    """Euler characteristic b0 - b1 + b2, counted cell by cell.

    With 26 (8) neighbours the voxels are closed cubes: a vertex, edge or face exists where any voxel touches it.
    With 6 (4) neighbours they are points: an edge, square or cube exists where all its corners are foreground.
    Both are sums over the subsets of axes along which neighbouring voxels are joined.

    Args:
        mask: (X, Y, Z) or (X, Y) bool.
        connectivity: as in `betti_numbers`.

    Returns:
        Any integer; 0 for an empty mask.

    Raises:
        ShapeError: the mask is not a 2-D or 3-D boolean array.
        ConfigError: as in `betti_numbers`.
    """
    check_mask("mask", mask)
    closed_cubes = foreground_connectivity(mask.ndim, connectivity) in (26, 8)
    join = np.logical_or if closed_cubes else np.logical_and
    padded = np.pad(mask, 1)
    total = 0
    for joined_axes in range(mask.ndim + 1):
        dimension = mask.ndim - joined_axes if closed_cubes else joined_axes
        for axes in combinations(range(mask.ndim), joined_axes):
            cells = padded
            for axis in axes:
                before, after = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
                before[axis], after[axis] = slice(None, -1), slice(1, None)
                cells = join(cells[tuple(before)], cells[tuple(after)])
            total += (-1) ** dimension * int(np.count_nonzero(cells))
    return total


def _count_components(mask: NDArray[np.bool_], connectivity: Connectivity) -> int:
    _, count = cc3d.connected_components(mask, connectivity=connectivity, binary_image=True, return_N=True)
    return int(count)


def foreground_connectivity(ndim: int, connectivity: int | None) -> Connectivity:
    """The connectivity asked for, or the larger one; a ConfigError when there is none such in `ndim` dimensions."""
    allowed = DUAL_CONNECTIVITY[ndim]
    if connectivity is None:
        connectivity = max(allowed)
    if connectivity not in allowed:
        names = " or ".join(str(value) for value in allowed)
        raise ConfigError(f"connectivity: expected {names} for a {ndim}-D mask, got {connectivity!r}.")
    return allowed[allowed[connectivity]]  # the dual of the dual: the value itself, typed


def check_mask(name: str, mask: NDArray[np.bool_]) -> None:
    """Raise a ShapeError unless the argument `name` is a 2-D or 3-D array of bool."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.ndim not in DUAL_CONNECTIVITY:
        got = f"{mask.ndim}-D {mask.dtype}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ShapeError(
            f"{name}: expected a 2-D or 3-D numpy array of bool, got {got}. Select a label first, as in `labels == 1`."
        )


def check_same_shape(name: str, mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> None:
    """Raise a ShapeError unless the argument `name` is an array of bool with the shape of the prediction."""
    check_mask(name, mask)
    if mask.shape != reference.shape:
        raise ShapeError(f"{name}: expected the shape {reference.shape} of the prediction, got {mask.shape}.")
