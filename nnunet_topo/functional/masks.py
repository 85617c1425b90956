"""Which voxels count, which structure each belongs to, and the logits with everything else cut away."""

from __future__ import annotations

import torch
from torch import Tensor


def spatial_axes(tensor: Tensor) -> tuple[int, ...]:
    """Axes after batch and channel, e.g. (2, 3, 4) in 3-D."""
    return tuple(range(2, tensor.ndim))


def valid_mask(labels: Tensor, *, ignore_label: int | None, regions: bool) -> Tensor | None:
    """Voxels whose label is known.

    Args:
        labels: (B, 1, X, Y[, Z]) label values, or with `regions` (B, R + 1, X, Y[, Z]) one-hot, ignored voxels last.
        ignore_label: the value of unlabelled voxels (with `regions` only whether it is None matters).
        regions: whether `labels` are one-hot regions.

    Returns:
        (B, 1, X, Y[, Z]) bool, or None without an ignore label (every voxel is valid; no memory is spent).
    """
    if ignore_label is None:
        return None
    return labels[:, -1:] == 0 if regions else labels != ignore_label


def structure_onehot(labels: Tensor, structures: int, *, valid: Tensor | None, regions: bool) -> Tensor:
    """Membership of each foreground structure; ignored voxels belong to none.

    Args:
        labels: as in `valid_mask`.
        structures: number K of foreground structures or regions.
        valid: result of `valid_mask`.
        regions: as in `valid_mask`.

    Returns:
        (B, K, X, Y[, Z]) bool (one byte a voxel, unlike a float or int64 one-hot).
    """
    if regions:
        onehot = labels[:, :structures] != 0
    else:
        values = torch.arange(1, structures + 1, device=labels.device).view(1, -1, *[1] * (labels.ndim - 2))
        onehot = labels == values
    return onehot if valid is None else onehot & valid


def masked_logits(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Logits in float32 (float64 stays) with 0 in ignored voxels.

    Selecting before any arithmetic is what makes ignored voxels harmless: whatever they hold, inf and NaN included,
    changes nothing, and the gradient there is exactly 0. A multiplication by the mask would give NaN * 0 = NaN.

    Args:
        logits: (B, C, X, Y[, Z]) float.
        valid: (B, 1, X, Y[, Z]) bool or None.

    Returns:
        (B, C, X, Y[, Z]) float32 or float64.
    """
    kept = logits if valid is None else torch.where(valid, logits, 0.0)
    return kept if kept.dtype == torch.float64 else kept.float()


def select_valid(values: Tensor, valid: Tensor | None) -> Tensor:
    """`values` with exact zeros (and zero gradient) in ignored voxels."""
    return values if valid is None else torch.where(valid, values, 0.0)


def safe_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The ratio, and 0 with zero gradient where the denominator is not positive (nothing to count)."""
    counted = denominator > 0
    return torch.where(counted, numerator, 0.0) / torch.where(counted, denominator, 1.0)
