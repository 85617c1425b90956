"""Recall on the skeleton of the labels, held in check by precision."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_topo.functional.cldice import harmonic_loss
from nnunet_topo.functional.masks import spatial_axes
from nnunet_topo.functional.morphology import dilate_cube


def skeleton_recall_loss(
    probabilities: Tensor,
    onehot: Tensor,
    skeleton: Tensor,
    *,
    tube: int = 1,
    beta: float = 1.0,
    smooth: float = 1e-5,
    batch_dice: bool = False,
) -> Tensor:
    """One minus the F-beta of the recall on the labels' skeleton and the precision of all voxels.

    The skeleton weighs a thin branch by its length, not its volume. It is that of the labels alone, so the loss costs
    little more than Dice. Recall alone is highest when everything is foreground; the precision, the share of the
    predicted probability that lies inside the structure, keeps that from winning.

    Args:
        probabilities: (B, K, X, Y[, Z]) in [0, 1], 0 in ignored voxels.
        onehot: (B, K, X, Y[, Z]) bool, False in ignored voxels.
        skeleton: (B, K, X, Y[, Z]), not 0 on the skeleton or medial surface of each structure.
        tube: voxels >= 0 by which the skeleton is thickened, within the structure.
        beta: > 0, how many times as much recall counts as precision.
        smooth: > 0, voxels.
        batch_dice: ratios over batch and ranks instead of one a sample.

    Returns:
        () float in [0, 1], 0 is perfect. An absent structure of which nothing is predicted counts as perfect; an absent
        one predicted anywhere costs nearly 1, a missed one costs 1.

    Source:
        Kirchhoff et al., Skeleton Recall Loss for Connectivity Conserving and Resource Efficient Segmentation of Thin
        Tubular Structures, ECCV 2024. Differs from it in: the precision; a skeleton of each structure of its own.
    """
    axes = spatial_axes(probabilities)
    target = (skeleton != 0).to(torch.uint8)
    for _ in range(tube):
        target = dilate_cube(target)
    target *= onehot
    sums = torch.stack(
        [
            (target * probabilities).sum(axes),
            target.sum(axes).to(probabilities.dtype),
            torch.where(onehot, probabilities, 0.0).sum(axes),
            probabilities.sum(axes),
        ]
    )
    return harmonic_loss(sums, smooth=smooth, beta=beta, batch_dice=batch_dice)
