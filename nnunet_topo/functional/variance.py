"""Spatial variance of the prediction: the hinge against the labels' variance, and the diary's own formula."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_topo.functional.entropy import binary_entropy
from nnunet_topo.functional.gather import pool_samples
from nnunet_topo.functional.masks import safe_ratio, select_valid, spatial_axes


def _variance(probabilities: Tensor, count: Tensor, valid: Tensor | None, batch_dice: bool) -> tuple[Tensor, Tensor]:
    """Variance over valid voxels and the pooled count, both (1 or B, K).

    Two passes: mean of squares minus square of mean cancels in float32 where nearly everything is foreground. The mean
    needs no gradient, since the deviations from it sum to 0.
    """
    axes = spatial_axes(probabilities)
    counts = count[:, None].expand(probabilities.shape[:2]).to(probabilities.dtype)
    sums = torch.stack([probabilities.detach().sum(axes), counts])
    total, pooled_count = pool_samples(sums, batch_dice)
    mean = safe_ratio(total, pooled_count).view(*total.shape, *[1] * len(axes))
    deviation = select_valid(probabilities - mean, valid)
    squares = pool_samples((deviation * deviation).sum(axes)[None], batch_dice)[0]
    return safe_ratio(squares, pooled_count), pooled_count


def variance_hinge_loss(
    probabilities: Tensor, onehot: Tensor, count: Tensor, *, valid: Tensor | None = None, batch_dice: bool = False
) -> Tensor:
    """Mean over structures of max(0, 1 - var(p) / var(y)): a prediction must vary at least as much as the labels.

    Pushes a washed-out prediction to take sides and lets a decided one alone. It does not know which side is right: use
    it only beside a term that does.

    Args:
        probabilities: (B, K, X, Y[, Z]) in [0, 1].
        onehot: (B, K, X, Y[, Z]) bool, False in ignored voxels.
        count: (B,) number of valid voxels a sample.
        valid: (B, 1, X, Y[, Z]) bool or None.
        batch_dice: variances over batch and ranks instead of one a sample.

    Returns:
        () float in [0, 1]; 0 for a perfect mask, and with zero gradient where the labels do not vary (structure absent,
        everywhere, or nothing valid).
    """
    predicted, voxels = _variance(probabilities, count, valid, batch_dice)
    inside = onehot.sum(spatial_axes(onehot)).to(probabilities.dtype)
    inside = pool_samples(inside[None], batch_dice)[0]
    labelled = safe_ratio(inside, voxels) * safe_ratio(voxels - inside, voxels)
    shortfall = (1.0 - safe_ratio(predicted, labelled)).clamp_min(0.0)
    return torch.where(labelled > 0, shortfall, 0.0).mean()


def variance_legacy_loss(
    probabilities: Tensor, count: Tensor, *, valid: Tensor | None = None, batch_dice: bool = False
) -> Tensor:
    """The diary's formula, (1 - var(p)) ** 2 + max(0, 0.5 - mean entropy), averaged over structures.

    Target-free and unsatisfiable: its minimum 0.828 lies at probabilities of 0.2 and 0.8 in equal numbers, a constant
    0.5 scores 1.000, a perfect mask 1.063 (half foreground) to 1.407 (5 % foreground), a constant 1 scores 1.5. Use it
    only to repeat the diary.

    Args:
        probabilities: (B, K, X, Y[, Z]) in [0, 1].
        count: (B,) number of valid voxels a sample.
        valid: (B, 1, X, Y[, Z]) bool or None.
        batch_dice: over batch and ranks instead of a sample at a time.

    Returns:
        () float in [0.828, 1.5]; a sample without valid voxels contributes 0 with zero gradient.
    """
    variance, voxels = _variance(probabilities, count, valid, batch_dice)
    entropy = select_valid(binary_entropy(probabilities), valid).sum(spatial_axes(probabilities))
    entropy = safe_ratio(pool_samples(entropy[None], batch_dice)[0], voxels)
    loss = (1.0 - variance) ** 2 + (0.5 - entropy).clamp_min(0.0)
    return torch.where(voxels > 0, loss, 0.0).mean()
