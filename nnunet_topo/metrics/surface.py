"""Distances between the surfaces of two masks, each piece of surface counted by its area.

The surface runs through the corners that voxels share: wherever the 2 x 2 x 2 (2-D: 2 x 2) voxels around a corner are
not all alike, it holds the piece of surface that marching cubes (2-D: marching squares) puts there. Outside the array
is background. So a mask cut off by the border of the array has a surface there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nnunet_topo.errors import ConfigError
from nnunet_topo.metrics.betti import check_mask, check_same_shape
from nnunet_topo.metrics.boxes import foreground_box

# Up to so many neighbours are looked up one by one; for larger tolerances a tree of the surface's points is quicker.
_MOST_OFFSETS = 1000


@dataclass(frozen=True)
class SurfaceErrors:
    """How far two surfaces are from each other.

    Attributes:
        hd95: mm, >= 0: the larger of the two directions' 95th percentiles of the distance to the other surface.
        assd: mm, >= 0: mean distance to the other surface, over both surfaces together.
    """

    hd95: float
    assd: float


def surface_dice(
    prediction: NDArray[np.bool_],
    ground_truth: NDArray[np.bool_],
    *,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> float:
    """Share of both surfaces that is at most the tolerance away from the other one (normalised surface Dice).

    A sheet that is one voxel too thick everywhere scores 1 at a tolerance of one voxel, and so do small holes: it says
    little about topology.

    Args:
        prediction: (X, Y, Z) or (X, Y) bool.
        ground_truth: bool, same shape.
        spacing_mm: one value > 0 per axis, same order.
        tolerance_mm: >= 0.

    Returns:
        In [0, 1]. Both masks empty: 1. One empty: 0.

    Raises:
        ShapeError: shapes differ, or an array is not a 2-D or 3-D boolean array.
        ConfigError: a spacing or the tolerance is out of range.

    Source:
        Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and neck anatomy, 2018,
        section "Volumetric and surface DSC". Equal to google-deepmind/surface-distance.
    """
    spacing = _checked(prediction, ground_truth, spacing_mm)
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ConfigError(f"tolerance_mm: expected a number >= 0, got {tolerance_mm!r}.")
    box = foreground_box(prediction, ground_truth)
    if box is None:
        return 1.0
    first, second = _corner_codes(prediction[box]), _corner_codes(ground_truth[box])
    areas = _piece_areas(spacing)
    near = total = 0.0
    for codes, other in ((first, second), (second, first)):
        within = _within(codes, other, spacing, tolerance_mm)
        pieces = areas[codes[_is_surface(codes)]]
        near += float(pieces[within].sum())
        total += float(pieces.sum())
    return near / total


def surface_errors(
    prediction: NDArray[np.bool_], ground_truth: NDArray[np.bool_], *, spacing_mm: Sequence[float]
) -> SurfaceErrors:
    """The 95th percentile and the mean of the distances between the surfaces.

    Args:
        prediction: (X, Y, Z) or (X, Y) bool.
        ground_truth: bool, same shape.
        spacing_mm: one value > 0 per axis, same order.

    Returns:
        Distances in mm. Both masks empty: NaN. One empty: the diagonal of the whole array, the largest distance that
        it could hold, so that a mean stays finite and a missed structure costs most.

    Raises:
        ShapeError: shapes differ, or an array is not a 2-D or 3-D boolean array.
        ConfigError: a spacing is out of range.

    Source:
        As google-deepmind/surface-distance (robust Hausdorff distance, and its average distances pooled by area).
        Libraries that count boundary voxels instead of areas differ by up to about a voxel.
    """
    spacing = _checked(prediction, ground_truth, spacing_mm)
    box = foreground_box(prediction, ground_truth)
    if box is None:
        return SurfaceErrors(math.nan, math.nan)
    if not prediction.any() or not ground_truth.any():
        diagonal = math.hypot(*(size * step for size, step in zip(prediction.shape, spacing, strict=True)))
        return SurfaceErrors(diagonal, diagonal)
    areas = _piece_areas(spacing)
    first, second = _corner_codes(prediction[box]), _corner_codes(ground_truth[box])
    percentiles, weighted, total = [], 0.0, 0.0
    for codes, other in ((first, second), (second, first)):
        distances = _distances(_points(codes), _points(other), spacing)
        pieces = areas[codes[_is_surface(codes)]]
        percentiles.append(_percentile(distances, pieces, 0.95))
        weighted += float(distances @ pieces)
        total += float(pieces.sum())
    return SurfaceErrors(max(percentiles), weighted / total)


def _percentile(distances: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    order = np.argsort(distances)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(distances[order][min(int(np.searchsorted(reached, share)), distances.size - 1)])


def _checked(
    prediction: NDArray[np.bool_], ground_truth: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> tuple[float, ...]:
    check_mask("prediction", prediction)
    check_same_shape("ground_truth", ground_truth, prediction)
    spacing = tuple(float(value) for value in spacing_mm)
    if len(spacing) != prediction.ndim or not all(math.isfinite(value) and value > 0 for value in spacing):
        raise ConfigError(f"spacing_mm: expected {prediction.ndim} numbers > 0, got {spacing}.")
    return spacing


def _corner_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """For every corner the voxels around it that are foreground, a bit each; one corner more than voxels an axis."""
    padded = np.pad(mask, 1).view(np.uint8)
    shape = tuple(size + 1 for size in mask.shape)
    codes = np.zeros(shape, np.uint8)
    for bit, offset in enumerate(product((0, 1), repeat=mask.ndim)):
        neighbours = padded[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))]
        codes |= neighbours << np.uint8(bit)
    return codes


def _is_surface(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (codes != 0) & (codes != (1 << 2**codes.ndim) - 1)


def _points(codes: NDArray[np.uint8]) -> NDArray[np.intp]:
    return np.argwhere(_is_surface(codes))


def _distances(
    points: NDArray[np.intp], others: NDArray[np.intp], spacing: tuple[float, ...], limit: float = math.inf
) -> NDArray[np.float64]:
    """Distance of each point to the nearest of the others, inf if it is beyond the limit."""
    steps = np.asarray(spacing)
    tree = cKDTree(others * steps, balanced_tree=False, compact_nodes=False)
    found, nearest = tree.query(points * steps, distance_upper_bound=limit * (1 + 1e-9))
    reached = np.isfinite(found)
    # From differences of indices, as a distance transform has it: exact where the spacing is.
    differences = (points[reached] - others[nearest[reached]]) * steps
    found[reached] = np.sqrt((differences**2).sum(axis=1))
    return found


def _within(
    codes: NDArray[np.uint8], other: NDArray[np.uint8], spacing: tuple[float, ...], tolerance: float
) -> NDArray[np.bool_]:
    """Which surface points of `codes`, in the order of their index, have one of `other` within the tolerance."""
    reach = [int(tolerance / step * (1 + 1e-9)) for step in spacing]
    if not _is_surface(other).any():
        return np.zeros(int(np.count_nonzero(_is_surface(codes))), bool)
    if math.prod(2 * steps + 1 for steps in reach) > _MOST_OFFSETS:
        return _distances(_points(codes), _points(other), spacing, tolerance) <= tolerance
    offsets = np.stack(np.meshgrid(*(np.arange(-steps, steps + 1) for steps in reach), indexing="ij"), -1)
    offsets = offsets.reshape(-1, len(reach))
    lengths = np.sqrt(((offsets * np.asarray(spacing)) ** 2).sum(axis=1))
    nearest_first = np.argsort(lengths, kind="stable")
    offsets = offsets[nearest_first][lengths[nearest_first] <= tolerance]
    margins = [(steps, steps) for steps in reach]
    surface = np.pad(_is_surface(other), margins)
    strides = np.asarray(surface.strides)  # of single bytes, so they count elements
    positions = np.flatnonzero(np.pad(_is_surface(codes), margins))
    lookup = surface.ravel()
    within = np.zeros(positions.size, bool)
    left = np.arange(positions.size)
    for step in offsets @ strides:
        hit = lookup[positions[left] + step]
        within[left[hit]] = True
        left = left[~hit]
    return within


@lru_cache(maxsize=64)
def _piece_areas(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Area in mm^2 (2-D: length in mm) of the piece of surface for every code."""
    if len(spacing) == 2:
        return _piece_lengths(spacing)
    areas = np.zeros(256)
    for code, triangles in enumerate(_pieces()):
        edges = triangles[:, 1:] * np.asarray(spacing) - triangles[:, :1] * np.asarray(spacing)
        areas[code] = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1).sum() / 2
    return areas


def _piece_lengths(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """As `_piece_areas` in 2-D: a line between the middles of the sides where the voxels differ."""
    slanted = math.hypot(*spacing) / 2
    lengths = np.zeros(16)
    for code in range(1, 15):
        voxels = np.array([code >> bit & 1 for bit in range(4)]).reshape(2, 2)
        if voxels.sum() != 2:
            lengths[code] = slanted
        elif voxels[0, 0] == voxels[1, 1]:
            lengths[code] = 2 * slanted  # two voxels that touch at a corner: a line around each
        else:
            lengths[code] = spacing[1] if voxels[0, 0] == voxels[0, 1] else spacing[0]
    return lengths


@lru_cache(maxsize=1)
def _pieces() -> tuple[NDArray[np.float64], ...]:
    """(T, 3, 3) corners of the triangles for each of the 256 codes, for a spacing of 1.

    Marching cubes are ambiguous where voxels touch only along an edge. Here the smaller half of the eight voxels is
    kept apart, so that a mask and its complement have the same surface.
    """
    from skimage.measure import marching_cubes

    pieces = [np.zeros((0, 3, 3))]
    for code in range(1, 255):
        voxels = np.array([code >> bit & 1 for bit in range(8)], float).reshape(2, 2, 2)
        smaller = voxels if voxels.sum() <= 4 else 1 - voxels
        vertices, faces, _, _ = marching_cubes(smaller, 0.5, method="lorensen", allow_degenerate=True)
        pieces.append(vertices.astype(float)[faces])
    return (*pieces, np.zeros((0, 3, 3)))
