"""Soft centreline Dice (clDice) loss."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_topo.functional.gather import pool_samples
from nnunet_topo.functional.masks import spatial_axes
from nnunet_topo.functional.skeleton import soft_skeleton


def sharpen(probabilities: Tensor, power: float) -> Tensor:
    """p^k / (p^k + (1 - p)^k), the probability after its logit has been multiplied by `power`.

    Args:
        probabilities: any shape, in [0, 1].
        power: >= 1; 1 changes nothing, the limit is the mask p > 0.5.

    Returns:
        Same shape, in [0, 1].
    """
    if power == 1:
        return probabilities
    inside, outside = probabilities**power, (1.0 - probabilities) ** power
    return inside / (inside + outside)


def soft_cldice_loss(
    probabilities: Tensor,
    onehot: Tensor,
    *,
    iterations: int = 10,
    smooth: float = 1e-5,
    sharpness: float = 4.0,
    batch_dice: bool = False,
) -> Tensor:
    """One minus the mean soft clDice of the structures: breaks, holes and false branches of thin structures.

    Sensitivity is the mean probability on the labels' skeleton (a gap lies on it, so it has a gradient). Precision is
    the share of the prediction's skeleton that lies inside the labels. A soft skeleton of raw probabilities drowns it:
    every local maximum of a background at p = 0.05 is skeleton, and there are thousands of them, although the mask
    p > 0.5 is perfect. The prediction is therefore sharpened before its skeleton is taken: 0.05 becomes 1e-5, 0.95
    becomes 1. The map is smooth and increasing, and such maps commute with erosion and dilation: the skeleton stays
    where it was, and only its grey values approach those of the mask that the clDice metric is defined on.

    Bridges thinner than the structure are seen by precision alone; closed cavities cost little.

    Args:
        probabilities: (B, K, X, Y[, Z]) in [0, 1], 0 in ignored voxels.
        onehot: (B, K, X, Y[, Z]) bool, False in ignored voxels.
        iterations: erosions of `soft_skeleton`.
        smooth: > 0, in voxels of skeleton; keeps empty skeletons finite.
        sharpness: >= 1, factor on the logit before the prediction's skeleton is taken; 1 is Shit et al.
        batch_dice: one ratio over batch and ranks instead of one a sample.

    Returns:
        () float in [0, 1], 0 is perfect. An absent structure of which nothing is predicted (also: everything ignored)
        counts as perfect; an absent one predicted with a skeleton costs nearly 1, a missed one costs 1.

    Source:
        Shit et al., clDice - a Novel Topology-Preserving Loss Function for Tubular Structure Segmentation, CVPR 2021,
        eq. 1-3. Differs from it in: the sharpening; one ratio a structure; see `soft_skeleton`.
    """
    axes = spatial_axes(probabilities)
    with torch.no_grad():
        label_skeleton = soft_skeleton(onehot.to(probabilities.dtype), iterations)
    skeleton = soft_skeleton(sharpen(probabilities, sharpness), iterations)
    sums = torch.stack(
        [
            (label_skeleton * probabilities).sum(axes),
            label_skeleton.sum(axes),
            torch.where(onehot, skeleton, 0.0).sum(axes),
            skeleton.sum(axes),
        ]
    )
    covered, labelled, inside, predicted = pool_samples(sums, batch_dice)
    sensitivity = (covered + smooth) / (labelled + smooth)
    precision = (inside + smooth) / (predicted + smooth)
    return 1.0 - (2.0 * precision * sensitivity / (precision + sensitivity)).mean()
