"""Smooth random fields, the one texture that both kinds of synthetic volumes are painted with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom


def smooth_noise(
    generator: np.random.Generator, shape: Sequence[int], scale: float | Sequence[float] | NDArray[np.floating]
) -> NDArray[np.float32]:
    """Random field of mean 0 and standard deviation 1 that varies over about `scale` voxels.

    Wide scales are drawn on a coarse grid and interpolated, so the cost does not grow with the scale.

    Args:
        generator: where the numbers come from; the same state gives the same field.
        shape: of the result.
        scale: standard deviation of the smoothing, in voxels, one value or one per axis.

    Returns:
        float32 of that shape.
    """
    scales = np.broadcast_to(np.asarray(scale, dtype=float), (len(shape),))
    steps = np.maximum(1.0, scales / 2.0)
    coarse_shape = [max(2, int(np.ceil(length / step)) + 1) for length, step in zip(shape, steps, strict=True)]
    field = generator.standard_normal(coarse_shape, dtype=np.float32)
    field = gaussian_filter(field, scales / steps, mode="wrap")
    factors = [max(1.0, length / coarse) for length, coarse in zip(shape, coarse_shape, strict=True)]
    if any(factor > 1.0 for factor in factors):
        field = zoom(field, factors, order=1, grid_mode=True, mode="nearest")
    field = field[tuple(slice(length) for length in shape)]
    return ((field - field.mean()) / max(float(field.std()), 1e-6)).astype(np.float32)
