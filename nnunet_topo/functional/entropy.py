"""Mean entropy of the prediction, and the penalty for too little of it."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_topo.functional.gather import pool_voxels
from nnunet_topo.functional.masks import safe_ratio


def binary_entropy(probabilities: Tensor) -> Tensor:
    """-p log p - (1 - p) log(1 - p) in nats, with a finite gradient at 0 and 1.

    Args:
        probabilities: any shape, in [0, 1].

    Returns:
        Same shape, in [0, ln 2].
    """
    tiny = torch.finfo(probabilities.dtype).eps
    inside = probabilities.clamp(tiny, 1.0 - tiny)  # beyond it entropy and slope are below rounding
    return torch.special.entr(inside) + torch.special.entr(1.0 - inside)


def categorical_entropy(log_probabilities: Tensor) -> Tensor:
    """-sum of p log p over the classes, in nats.

    Args:
        log_probabilities: (B, C, X, Y[, Z]), normalised over C.

    Returns:
        (B, 1, X, Y[, Z]) in [0, ln C].
    """
    return -(log_probabilities.exp() * log_probabilities).sum(1, keepdim=True)


def entropy_floor_loss(entropy: Tensor, count: Tensor, *, floor: float = 0.3, batch_dice: bool = False) -> Tensor:
    """max(0, floor - mean entropy): punishes a prediction for being too sure of itself on average.

    It rewards under-confidence and knows no labels: a perfect, certain mask pays the whole `floor`. Kept because the
    diary's recipes use it.

    Args:
        entropy: (B, M, X, Y[, Z]) nats, 0 in ignored voxels.
        count: () number of valid voxels in the batch times M.
        floor: nats, >= 0.
        batch_dice: pool over ranks too.

    Returns:
        () float in [0, floor]; 0 with zero gradient when nothing is valid.
    """
    total, count = pool_voxels(entropy.sum(), count, batch_dice)
    return torch.where(count > 0, (floor - safe_ratio(total, count)).clamp_min(0.0), 0.0)
