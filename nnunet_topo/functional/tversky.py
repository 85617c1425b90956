"""Tversky loss."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_topo.functional.gather import pool_samples
from nnunet_topo.functional.masks import spatial_axes


def tversky_loss(
    probabilities: Tensor,
    onehot: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
    smooth: float = 1e-5,
    batch_dice: bool = False,
) -> Tensor:
    """Mean over structures of (1 - TP / (TP + alpha * FP + beta * FN)) ** gamma: Dice with a price for each error.

    Args:
        probabilities: (B, K, X, Y[, Z]) in [0, 1], 0 in ignored voxels.
        onehot: (B, K, X, Y[, Z]) bool, False in ignored voxels.
        alpha: >= 0, price of a false foreground voxel.
        beta: >= 0, price of a missed one. alpha = beta = 0.5 is Dice.
        gamma: > 0; below 1 structures that are nearly right keep a large gradient, above 1 they lose it.
        smooth: > 0, voxels.
        batch_dice: one ratio over batch and ranks instead of one a sample.

    Returns:
        () float in [0, 1], 0 is perfect. An absent structure of which nothing is predicted counts as perfect.

    Source:
        Salehi et al., Tversky loss function for image segmentation using 3D fully convolutional deep networks, MLMI
        2017, eq. 3; the exponent: Abraham and Khan, A novel focal Tversky loss function, ISBI 2019. Differs from them
        in: gamma is the exponent itself, not its inverse.
    """
    axes = spatial_axes(probabilities)
    sums = torch.stack(
        [
            torch.where(onehot, probabilities, 0.0).sum(axes),
            probabilities.sum(axes),
            onehot.sum(axes).to(probabilities.dtype),
        ]
    )
    found, predicted, labelled = pool_samples(sums, batch_dice)
    errors = alpha * (predicted - found).clamp_min(0.0) + beta * (labelled - found).clamp_min(0.0)
    share = errors / (found + errors + smooth)
    if gamma != 1:
        least = torch.finfo(share.dtype).eps  # below it the slope of a power < 1 has no bound
        share = torch.where(share > least, share.clamp_min(least) ** gamma, 0.0)
    return share.mean()
