"""A rolled papyrus sheet in a CT-like volume: thin, torn, with windings that nearly touch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nnunet_topo.data.synthetic_noise import smooth_noise

RIM = 3  # voxels that are unlabelled on every face, as in the competition's volumes
UNLABELLED_SHARE = 0.3  # of the volume inside the rim

_THICKNESS = 2.3  # radial extent of the sheet in voxels: two to three voxels once sampled
_CLOSEST_GAP = 2.1  # radial distance from one winding's face to the next at the tightest places: one to two voxels
_AIR, _PAPYRUS = 62.0, 120.0  # grey values before texture, blur and noise


def scroll_volume(size: int, generator: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Image and complete label of one cubic scroll.

    The sheet is an Archimedean spiral around a bent axis along Z. Every turn wobbles on its own, so neighbouring turns
    approach each other down to a gap of one to two voxels, which blur and noise close in the image. A few tears give
    the sheet holes; parts of it fade.

    Args:
        size: edge length in voxels, at least 24.
        generator: where the randomness comes from.

    Returns:
        image: (Z, Y, X) uint8.
        sheet: (Z, Y, X) bool, the whole truth, also where `unlabelled_mask` will hide it.
    """
    distance, arc = _distance_to_sheet(size, generator)
    sheet = (np.abs(distance) <= _THICKNESS / 2) & ~_tears(arc, generator)
    return _ct_image(sheet, distance, generator), sheet


def unlabelled_mask(size: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Voxels that nobody labelled: a rim on every face and some smooth regions inside.

    Args:
        size: edge length of the volume in voxels.
        generator: where the randomness comes from.

    Returns:
        (Z, Y, X) bool; inside the rim `UNLABELLED_SHARE` of the voxels are True.
    """
    inside = (slice(RIM, size - RIM),) * 3
    field = smooth_noise(generator, (size,) * 3, max(4.0, size / 8))[inside]
    mask = np.ones((size,) * 3, dtype=bool)
    mask[inside] = field > np.quantile(field, 1 - UNLABELLED_SHARE)
    return mask


def _distance_to_sheet(size: int, generator: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Signed radial distance to the nearest turn, and the arc length at which that turn passes: both (Z, Y, X)."""
    pitch = generator.uniform(5.0, 6.0) + min(size, 128) / 64
    inner, outermost = 0.7 * pitch, size * generator.uniform(0.44, 0.49)
    turns = max(1, round((outermost - inner) / pitch))
    centre_y, centre_x = _bent_axis(size, generator)
    grid = np.arange(size, dtype=np.float32)
    y = grid[None, :, None] - centre_y[:, None, None]
    x = grid[None, None, :] - centre_x[:, None, None]
    radius = np.hypot(y, x)
    angle = np.mod(np.arctan2(y, x) + np.float32(generator.uniform(0, 2 * np.pi)), np.float32(2 * np.pi))

    columns = 5 * size
    radii = _turn_radii(size, turns, inner, pitch, columns, generator)
    plane = np.arange(size)[:, None, None]
    column = np.minimum((angle * (columns / (2 * np.pi))).astype(np.int32), columns - 1)
    distance = np.full((size,) * 3, np.inf, dtype=np.float32)
    arc = np.zeros((size,) * 3, dtype=np.float32)
    for turn in range(turns):
        offset = radius - radii[:, turn][plane, column]
        closer = np.abs(offset) < np.abs(distance)
        distance[closer] = offset[closer]
        full_angle = 2 * np.pi * turn + angle
        arc[closer] = (full_angle * (inner + pitch * full_angle / (4 * np.pi)))[closer]
    return distance, arc


def _bent_axis(size: int, generator: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Y and X of the scroll's axis in every plane along Z."""
    middle = size / 2 + generator.uniform(-0.05, 0.05, size=2) * size
    bend = [smooth_noise(generator, (size,), size / 3) * (0.03 * size) for _ in range(2)]
    return (middle[0] + bend[0]).astype(np.float32), (middle[1] + bend[1]).astype(np.float32)


def _turn_radii(
    size: int, turns: int, inner: float, pitch: float, columns: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Radius of the sheet, (Z, turn, angle), continuous from the end of a turn to the start of the next."""
    length = turns * columns
    rolled = np.arange(length, dtype=np.float32) / columns
    spiral = inner + pitch * rolled
    wobble = np.clip(smooth_noise(generator, (size, length), (size / 5, columns / 10)), -1.9, 1.9)
    radii = spiral + wobble * (0.26 * pitch) * np.clip(rolled - 0.9, 0, 1)

    angles = np.linspace(0, 2 * np.pi, columns, endpoint=False, dtype=np.float32)
    crush = np.zeros((size, columns), dtype=np.float32)
    for harmonic in (2, 3, 4, 6):
        amplitude = (1 + 0.4 * smooth_noise(generator, (size, 1), (size / 3, 1))) * (0.07 * size / harmonic)
        crush += amplitude * np.cos(harmonic * angles + generator.uniform(0, 2 * np.pi))
    radii = radii + np.tile(crush, (1, turns)) * np.clip(spiral / (0.4 * size), 0, 1)

    radii = radii.reshape(size, turns, columns)
    for turn in range(1, turns):
        closest = radii[:, turn - 1] + _THICKNESS + _CLOSEST_GAP
        radii[:, turn] = np.maximum(radii[:, turn], closest)
    return radii.astype(np.float32)


def _tears(arc: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.bool_]:
    """A few elliptic holes, placed along the unrolled sheet."""
    size = arc.shape[0]
    planes = np.arange(size, dtype=np.float32)[:, None, None]
    torn = np.zeros(arc.shape, dtype=bool)
    for _ in range(1 + size // 16):
        centre = generator.uniform(0, float(arc.max())), generator.uniform(0, size)
        half_width, half_height = generator.uniform(2.0, 4.5, size=2)
        torn |= ((arc - centre[0]) / half_width) ** 2 + ((planes - centre[1]) / half_height) ** 2 <= 1
    return torn


def _ct_image(
    sheet: NDArray[np.bool_], distance: NDArray[np.float32], generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Grey values: a sheet of uneven density, glue between close turns, grains, blur, noise."""
    size = sheet.shape[0]
    fading = np.clip(0.85 + 0.3 * smooth_noise(generator, sheet.shape, max(3.0, size / 12)), 0.3, 1.15)
    fibres = 1 + 0.12 * smooth_noise(generator, sheet.shape, (0.7, 3.0, 3.0))
    signal = sheet * fading * fibres
    glue = np.clip(smooth_noise(generator, sheet.shape, max(2.5, size / 20)) - 1.2, 0, 0.8)
    signal += glue * (np.abs(distance) < 4) * ~sheet
    grains = generator.random(sheet.shape, dtype=np.float32) > 1 - 1 / 3000
    signal = gaussian_filter(signal, 0.9) + gaussian_filter(grains.astype(np.float32) * 9, 1.1)
    haze = 6 * smooth_noise(generator, sheet.shape, size / 4)
    noise = 13 * smooth_noise(generator, sheet.shape, 0.6) + 9 * generator.standard_normal(sheet.shape, np.float32)
    return np.clip(np.rint(_AIR + _PAPYRUS * signal + haze + noise), 0, 255).astype(np.uint8)
