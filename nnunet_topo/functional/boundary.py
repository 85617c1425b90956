"""Cross-entropy weighted towards the boundaries of the structures."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_topo.functional.gather import pool_samples
from nnunet_topo.functional.masks import safe_ratio, select_valid, spatial_axes


def band_weights(signed_distance: Tensor, *, inner: float = 3.0, outer: float = 5.0) -> Tensor:
    """1 up to `inner` from the boundary, falling linearly to 0 at `outer`.

    Args:
        signed_distance: any shape and float dtype; the sign does not matter.
        inner: >= 0, in the unit of `signed_distance`.
        outer: > inner.

    Returns:
        Same shape, at least float32, in [0, 1].
    """
    distance = signed_distance.abs()
    distance = distance if distance.dtype == torch.float64 else distance.float()
    return ((outer - distance) / (outer - inner)).clamp(0.0, 1.0)


def boundary_loss(
    cross_entropy: Tensor, weights: Tensor, *, valid: Tensor | None = None, batch_dice: bool = False
) -> Tensor:
    """Weighted mean of the cross-entropy for each structure's band, averaged over structures.

    Sharpens walls and keeps touching sheets apart. It is not the boundary loss of Kervadec et al., and says nothing
    about voxels outside the band: never use it alone.

    Args:
        cross_entropy: (B, 1 or K, X, Y[, Z]) nats, 0 in ignored voxels.
        weights: (B, K, X, Y[, Z]) in [0, 1], from `band_weights`.
        valid: (B, 1, X, Y[, Z]) bool or None.
        batch_dice: one mean over batch and ranks instead of one a sample.

    Returns:
        () float >= 0. A structure without a boundary (absent, everywhere, or next to ignored voxels only) contributes
        0 with zero gradient.
    """
    axes = spatial_axes(weights)
    weights = select_valid(weights.to(cross_entropy.dtype), valid)
    total, weight = pool_samples(torch.stack([(weights * cross_entropy).sum(axes), weights.sum(axes)]), batch_dice)
    return safe_ratio(total, weight).mean()
