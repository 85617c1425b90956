"""Soft Dice loss."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_topo.functional.gather import pool_samples
from nnunet_topo.functional.masks import spatial_axes


def soft_dice_loss(probabilities: Tensor, onehot: Tensor, *, smooth: float = 1e-5, batch_dice: bool = False) -> Tensor:
    """One minus the mean soft Dice of the structures.

    Equals nnU-Net's MemoryEfficientSoftDiceLoss plus 1. It is blind to topology: a hole of a few voxels costs almost
    nothing, which is what the other terms are for.

    Args:
        probabilities: (B, K, X, Y[, Z]) in [0, 1], 0 in ignored voxels.
        onehot: (B, K, X, Y[, Z]) bool, False in ignored voxels.
        smooth: added to numerator and denominator, > 0.
        batch_dice: one Dice over the whole batch (and all ranks) instead of one a sample.

    Returns:
        () float in [0, 1], 0 is perfect. An absent structure of which nothing is predicted (also: everything ignored)
        counts as perfect; an absent structure predicted anywhere costs nearly 1.

    Source:
        Milletari et al., V-Net, 3DV 2016. Differs from it in: no squares in the denominator, as in nnU-Net.
    """
    axes = spatial_axes(probabilities)
    sums = torch.stack(
        [
            torch.where(onehot, probabilities, 0.0).sum(axes),
            probabilities.sum(axes),
            onehot.sum(axes).to(probabilities.dtype),
        ]
    )
    intersection, predicted, labelled = pool_samples(sums, batch_dice)
    return 1.0 - ((2.0 * intersection + smooth) / (labelled + predicted + smooth)).mean()
