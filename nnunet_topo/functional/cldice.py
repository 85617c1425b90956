"""Soft centreline Dice (clDice) loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnunet_topo.functional.gather import pool_samples
from nnunet_topo.functional.masks import spatial_axes
from nnunet_topo.functional.skeleton import iterations_for, mask_skeleton, soft_skeleton


class _Sharpen(torch.autograd.Function):
    """Keeps its input alone; written out, the formula would keep five maps."""

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, power: float) -> Tensor:
        ctx.save_for_backward(probabilities)
        ctx.power = power
        inside = probabilities**power
        return inside / (inside + (1.0 - probabilities) ** power)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (probabilities,), power = ctx.saved_tensors, ctx.power
        others = 1.0 - probabilities
        slope = power * (probabilities * others) ** (power - 1.0)
        return gradient * slope.div_(probabilities.pow(power).add_(others.pow_(power)).square_()), None


def sharpen(probabilities: Tensor, power: float) -> Tensor:
    """p^k / (p^k + (1 - p)^k), the probability after its logit has been multiplied by `power`.

    Args:
        probabilities: any shape, in [0, 1].
        power: >= 1; 1 changes nothing, the limit is the mask p > 0.5.

    Returns:
        Same shape, in [0, 1].
    """
    return probabilities if power == 1 else _Sharpen.apply(probabilities, power)


def harmonic_loss(sums: Tensor, *, smooth: float, beta: float = 1.0, batch_dice: bool = False) -> Tensor:
    """One minus the mean over structures of the weighted harmonic mean of a precision and a sensitivity.

    Args:
        sums: (4, B, K) >= 0: covered part of the labels, the labels, the right part of the prediction, the prediction.
        smooth: > 0, added to all four.
        beta: > 0, how many times as much sensitivity counts as precision (F-beta).
        batch_dice: ratios of sums over batch and ranks instead of one a sample.

    Returns:
        () float in [0, 1]. Nothing labelled and nothing predicted: 0.
    """
    covered, labelled, right, predicted = pool_samples(sums, batch_dice) + smooth
    sensitivity, precision = covered / labelled, right / predicted
    return 1.0 - ((1.0 + beta**2) * precision * sensitivity / (beta**2 * precision + sensitivity)).mean()


def soft_cldice_loss(
    probabilities: Tensor,
    onehot: Tensor,
    *,
    iterations: int | None = None,
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
        iterations: erosions of `soft_skeleton`; None: as many as each structure of each sample needs, which on a GPU
            waits for the device.
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
    erosions = iterations_for(onehot) if iterations is None else iterations
    label_skeleton = mask_skeleton(onehot, erosions)
    skeleton = soft_skeleton(sharpen(probabilities, sharpness), erosions)
    sums = torch.stack(
        [
            (label_skeleton * probabilities).sum(axes),
            label_skeleton.sum(axes).to(probabilities.dtype),
            torch.where(onehot, skeleton, 0.0).sum(axes),
            skeleton.sum(axes),
        ]
    )
    return harmonic_loss(sums, smooth=smooth, batch_dice=batch_dice)
