"""Focal loss."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_topo.functional.gather import pool_voxels
from nnunet_topo.functional.masks import safe_ratio

_SMALLEST_BASE = 1e-12  # keeps the slope of x ** gamma finite at 0 for gamma < 1


def focal_loss(
    cross_entropy: Tensor,
    count: Tensor,
    *,
    gamma: float = 2.0,
    weights: Tensor | None = None,
    batch_dice: bool = False,
) -> Tensor:
    """Mean over voxels of weight * (1 - p_t) ** gamma * cross-entropy, p_t the probability of the true class.

    Down-weights voxels that are already right. It makes predictions less confident than cross-entropy does, so it is
    the wrong tool where probabilities themselves are used.

    Args:
        cross_entropy: (B, M, X, Y[, Z]) nats, 0 in ignored voxels. p_t is exp(-cross_entropy).
        count: () number of valid voxels in the batch times M.
        gamma: >= 0; 0 gives cross-entropy.
        weights: same shape or None; multiplied in and not normalised away, so a larger weight is a larger loss.
        batch_dice: pool over ranks too.

    Returns:
        () float >= 0; 0 with zero gradient when nothing is valid.

    Source:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, eq. 5. Differs from it in: divided by the number
        of voxels, not of foreground anchors.
    """
    loss = cross_entropy
    if gamma > 0:
        wrong = -torch.expm1(-cross_entropy)  # 1 - p_t without cancellation
        loss = (wrong.clamp_min(_SMALLEST_BASE) if gamma < 1 else wrong) ** gamma * loss
    if weights is not None:
        loss = weights * loss
    return safe_ratio(*pool_voxels(loss.sum(), count, batch_dice))
