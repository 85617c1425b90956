"""Cross-entropy per voxel, its class weights and its mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_topo.functional.gather import pool_voxels
from nnunet_topo.functional.masks import safe_ratio, select_valid


def softmax_cross_entropy(log_probabilities: Tensor, index: Tensor, valid: Tensor | None) -> Tensor:
    """Minus the log-probability of the true class, voxel by voxel.

    Args:
        log_probabilities: (B, C, X, Y[, Z]), normalised over C.
        index: (B, 1, X, Y[, Z]) int64, true class in 0..C-1 (any class in ignored voxels).
        valid: (B, 1, X, Y[, Z]) bool or None.

    Returns:
        (B, 1, X, Y[, Z]) >= 0 in nats, 0 in ignored voxels.
    """
    return select_valid(-log_probabilities.gather(1, index), valid)


def sigmoid_cross_entropy(logits: Tensor, onehot: Tensor, valid: Tensor | None) -> Tensor:
    """Binary cross-entropy of every structure, voxel by voxel.

    Args:
        logits: (B, K, X, Y[, Z]).
        onehot: (B, K, X, Y[, Z]) bool.
        valid: (B, 1, X, Y[, Z]) bool or None.

    Returns:
        (B, K, X, Y[, Z]) >= 0 in nats, 0 in ignored voxels.
    """
    return select_valid(F.softplus(torch.where(onehot, -logits, logits)), valid)


def class_weight_map(weights: Sequence[float], like: Tensor, *, index: Tensor | None, onehot: Tensor) -> Tensor:
    """Weight of each voxel by its true class.

    Args:
        weights: one number a class, background first (K + 1 of them).
        like: gives dtype and device.
        index: (B, 1, X, Y[, Z]) int64 true classes (softmax), or None: every structure is a binary problem of its own,
            where `weights[0]` is for voxels outside it and `weights[k]` for those inside structure k.
        onehot: (B, K, X, Y[, Z]) bool, used where `index` is None.

    Returns:
        (B, 1, X, Y[, Z]) with `index`, else (B, K, X, Y[, Z]).
    """
    # Filled on the device number by number: a tensor made from a list would be copied there, and wait for the device.
    vector = torch.stack([torch.full((), weight, dtype=like.dtype, device=like.device) for weight in weights])
    if index is not None:
        return vector[index]
    return torch.where(onehot, vector[1:].view(1, -1, *[1] * (onehot.ndim - 2)), vector[0])


def mean_cross_entropy(
    cross_entropy: Tensor, count: Tensor, *, weights: Tensor | None = None, batch_dice: bool = False
) -> Tensor:
    """(Weighted) mean of a cross-entropy map over the valid voxels of the batch.

    Args:
        cross_entropy: (B, M, X, Y[, Z]), 0 in ignored voxels.
        count: () number of valid voxels in the batch times M.
        weights: same shape or None; 0 in ignored voxels. The sum of the weights takes the place of `count`.
        batch_dice: pool over ranks too.

    Returns:
        () float >= 0; 0 with zero gradient when nothing is valid.
    """
    if weights is None:
        total, count = pool_voxels(cross_entropy.sum(), count, batch_dice)
    else:
        total, count = pool_voxels((weights * cross_entropy).sum(), weights.sum(), batch_dice)
    return safe_ratio(total, count)
