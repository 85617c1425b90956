"""Renderings: the predicted surface as a person would see it, its errors in colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_topo.evaluation.report_slices import ADDED, MISSED, WIDE, rgb, ring, svg
from nnunet_topo.evaluation.report_views import CaseVolumes, View

SURFACE, GHOST = "#d5dade", "#5d6e7c"
SIDE = 256  # pixels of a rendering
MAX_VOXELS = 96  # along the longest axis of a rendering
LEVEL = 0.36  # of the smoothed mask: below the half, or sheets of one voxel would vanish
OPACITY = 0.2  # of every surface that is looked through
LIGHT = np.array([0.45, 0.62, 0.64])  # to the right, up and towards the viewer

Vector = NDArray[np.float64]


def close_up(volumes: CaseVolumes, view: View) -> str:
    """SVG of the prediction around one error, seen from where it shows.

    A hole is seen from above its sheet, a bridge from between the sheets that it joins. What stands before the error is
    looked through.
    """
    cut = volumes.cut(view.box)
    spacing = np.array(volumes.spacing_mm)
    wrong = np.where(view.highlight, 1 if view.region.added else 2, 0)
    points = np.argwhere(view.highlight) * spacing
    centre = points.mean(axis=0)
    reach = float(np.linalg.norm(points - centre, axis=1).max()) + float(spacing.max())
    direction = _direction(cut, centre, reach, bridge=view.region.kind == "bridge")
    camera = _Camera.looking(direction, (cut.prediction & ~cut.ignore) | view.highlight, spacing)
    pixels = _rendered(cut.prediction & ~cut.ignore, wrong, camera, solid_from=camera.depth(centre) - reach)
    x, y = camera.place(centre)
    mark = ring(WIDE / SIDE * x, WIDE / SIDE * y, WIDE / SIDE * reach / camera.pixel_mm + 2, WIDE, WIDE)
    words = f"rendering of the prediction, {volumes.case}, {view.region.kind} marked"
    return svg(pixels, SIDE, SIDE, mark, words)


def overview(volumes: CaseVolumes, views: list[View]) -> str:
    """SVG of the whole prediction, looked through, with every error of the case in colour and the views numbered."""
    step = max(1, -(-max(volumes.truth.shape) // MAX_VOXELS))
    spacing = step * np.array(volumes.spacing_mm)
    wrong = np.zeros(volumes.truth.shape, dtype=np.uint8)
    for region in volumes.regions:
        wrong[tuple(region.voxels.T)] = 1 if region.added else 2
    prediction = _coarse((volumes.prediction & ~volumes.ignore).astype(np.uint8), step) > 0
    errors = _coarse(wrong, step)
    camera = _Camera.looking(np.array([0.5, -0.62, 0.6]), prediction | (errors > 0), spacing)
    pixels = _rendered(prediction, errors, camera, solid_from=np.inf)
    marks = ""
    for number, view in enumerate(views, start=1):
        x, y = (WIDE / SIDE * value for value in camera.place(np.array(view.region.centre) * volumes.spacing_mm))
        marks += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6"/><text x="{x + 4.5:.1f}" y="{y - 2.5:.1f}">{number}</text>'
    marks = f'<g class="halo">{marks}</g><g class="mark">{marks}</g>'
    words = f"rendering of the whole prediction of {volumes.case} with {len(volumes.regions)} errors"
    return svg(pixels, SIDE, SIDE, marks, words)


@dataclass(frozen=True)
class _Camera:
    """A parallel projection of a box; all vectors are (z, y, x), positions in mm from the middle of the first voxel.

    Attributes:
        right: unit vector, of the columns.
        up: unit vector, against the rows.
        towards: unit vector, to the viewer.
        origin: position of the first row and column, nearest to the viewer.
        shape: (depth, rows, columns) of the samples.
        pixel_mm: width of a pixel; a step in depth is twice that.
        spacing: mm of a voxel.
    """

    right: Vector
    up: Vector
    towards: Vector
    origin: Vector
    shape: tuple[int, int, int]
    pixel_mm: float
    spacing: Vector

    @classmethod
    def looking(cls, towards_xyz: Vector, content: NDArray[np.bool_], spacing: Vector) -> _Camera:
        """The camera that sees all of a mask, in a square, from a direction (x, y, z)."""
        towards = towards_xyz[::-1] / np.linalg.norm(towards_xyz)
        vertical = np.array([1.0, 0.0, 0.0]) if abs(towards[0]) < 0.98 else np.array([0.0, 1.0, 0.0])
        # In the order (z, y, x) the cross product changes its sign.
        right = -np.cross(vertical, towards)
        right /= np.linalg.norm(right)
        up = -np.cross(towards, right)
        points = np.argwhere(content) * spacing
        axes = (-towards, -up, right)
        ends = (
            np.array([[(points @ axis).min(), (points @ axis).max()] for axis in axes]) if len(points) else np.eye(3, 2)
        )
        ends += np.array([-1.5, 1.5]) * spacing.max()
        side = float(np.ptp(ends[1:], axis=1).max())
        middle = ends.mean(axis=1)
        origin = ends[0, 0] * axes[0] + (middle[1] - side / 2) * axes[1] + (middle[2] - side / 2) * axes[2]
        steps = int(np.ptp(ends[0]) * SIDE / (2 * side)) + 2
        return cls(right, up, towards, np.asarray(origin), (steps, SIDE, SIDE), side / SIDE, spacing)

    def matrix(self) -> Vector:
        """Voxels for one step in depth, row and column, as columns (3, 3)."""
        steps = np.stack([-2 * self.pixel_mm * self.towards, -self.pixel_mm * self.up, self.pixel_mm * self.right])
        return np.asarray((steps / self.spacing).T)

    def sampled(self, field: NDArray[np.float32]) -> NDArray[np.float32]:
        """A volume along the lines of sight."""
        shifted = np.asarray(self.origin / self.spacing)
        return np.asarray(ndimage.affine_transform(field, self.matrix(), shifted, self.shape, order=1, mode="constant"))

    def depth(self, position: Vector) -> float:
        """Distance from the plane of the viewer, in mm."""
        return float((position - self.origin) @ -self.towards)

    def place(self, position: Vector) -> tuple[float, float]:
        """Column and row of a position."""
        offset = position - self.origin
        return float(offset @ self.right) / self.pixel_mm, float(offset @ -self.up) / self.pixel_mm


def _rendered(
    surface: NDArray[np.bool_], wrong: NDArray[np.integer], camera: _Camera, *, solid_from: float
) -> NDArray[np.uint8]:
    """RGB picture: errors (1 added, 2 missed) solid, the surface solid only from a depth in mm on."""
    smooth = _smoothed(surface, 0.75)
    inside = camera.sampled(smooth) > LEVEL
    errors = _smoothed(wrong > 0, 0.6)
    steps = 2 * camera.pixel_mm * np.arange(camera.shape[0])
    hit_surface, surface_at = _first(inside & (steps >= solid_from)[:, None, None])
    picture = np.ones((*camera.shape[1:], 3))
    voxels = _voxels(camera, hit_surface, surface_at)
    picture[hit_surface] = np.array(rgb(SURFACE)) / 255 * _brightness(smooth, voxels, camera)[:, None]
    end = np.where(hit_surface, surface_at, camera.shape[0])
    if wrong.any():
        errors = _smoothed(wrong > 0, 0.6)
        # An error is seen through whatever stands before it.
        hit_error, error_at = _first(camera.sampled(errors) > LEVEL * float(errors.max()))
        voxels = _voxels(camera, hit_error, error_at)
        colors = _error_colors(wrong, voxels) / 255 * _brightness(errors, voxels, camera)[:, None]
        picture[hit_error] = colors
        end[hit_error] = error_at[hit_error]
    before = np.arange(camera.shape[0])[:, None, None] < end
    walls = np.count_nonzero((inside[1:] != inside[:-1]) & before[1:], axis=0)
    veil = (1 - (1 - OPACITY) ** np.minimum(walls, 4))[..., None]
    ghost = np.ones_like(picture)
    hit_ghost, ghost_at = _first(inside & before)
    voxels = _voxels(camera, hit_ghost, ghost_at)
    ghost[hit_ghost] = np.array(rgb(GHOST)) / 255 * (1.6 * _brightness(smooth, voxels, camera) - 0.35)[:, None]
    picture = (1 - veil) * picture + veil * ghost
    return np.asarray(np.clip(255 * picture, 0, 255).astype(np.uint8))


def _smoothed(mask: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    return np.asarray(ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="constant"))


def _first(inside: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Whether and where each line of sight enters."""
    return np.asarray(inside.any(axis=0)), np.asarray(inside.argmax(axis=0))


def _voxels(camera: _Camera, chosen: NDArray[np.bool_], at: NDArray[np.intp]) -> Vector:
    """Voxel coordinates (3, N) of the chosen pixels at their depth."""
    rows, columns = np.nonzero(chosen)
    samples = np.stack([at[chosen], rows, columns]).astype(np.float64)
    return np.asarray(camera.matrix() @ samples + (camera.origin / camera.spacing)[:, None])


def _error_colors(wrong: NDArray[np.integer], voxels: Vector) -> Vector:
    """Colour (N, 3) of the nearest error."""
    nearest = ndimage.distance_transform_edt(wrong == 0, return_distances=False, return_indices=True)
    here = tuple(np.clip(np.round(voxels).astype(int), 0, np.array(wrong.shape)[:, None] - 1))
    codes = wrong[tuple(index[here] for index in nearest)]
    return np.where((codes == 1)[:, None], rgb(ADDED), rgb(MISSED)).astype(np.float64)


def _brightness(field: NDArray[np.float32], voxels: Vector, camera: _Camera) -> Vector:
    """Of a surface lit from the upper right, (N,)."""
    soft = ndimage.gaussian_filter(field, 0.8)
    slopes = [ndimage.map_coordinates(slope, voxels, order=1, mode="nearest") for slope in np.gradient(soft)]
    normals = -np.stack(slopes, axis=1) / camera.spacing
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    light = LIGHT @ np.stack([camera.right, camera.up, camera.towards])
    return np.asarray(0.5 + 0.5 * np.clip(normals @ light, -0.3, 1))


def _coarse(values: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Largest value of every block of `step` voxels a side."""
    padded = np.pad(values, [(0, -size % step) for size in values.shape])
    blocks = padded.reshape([part for size in padded.shape for part in (size // step, step)])
    return np.asarray(blocks.max(axis=(1, 3, 5)))


def _direction(cut: CaseVolumes, centre: Vector, reach: float, *, bridge: bool) -> Vector:
    """Vector (x, y, z) from the error to the viewer: along the sheets for a bridge, else from above the sheet."""
    spacing = np.array(cut.spacing_mm)
    slopes = np.stack([*np.gradient(_smoothed(cut.truth | cut.prediction, 1.0))], axis=-1) / spacing
    places = np.moveaxis(np.indices(cut.truth.shape), 0, -1) * spacing
    distance = np.linalg.norm(places - centre, axis=-1)
    weighted = slopes * np.exp(-0.5 * (distance / (reach + 2 * spacing.min())) ** 2)[..., None]
    _, axes = np.linalg.eigh(np.einsum("zyxi,zyxj->ij", weighted, weighted))
    along, across, normal = axes.T  # by rising change of the mask
    direction = 0.85 * along + 0.25 * normal + 0.45 * across if bridge else 0.85 * normal + 0.4 * across + 0.35 * along
    return np.asarray(direction[::-1] if direction[0] > 0 else -direction[::-1])
