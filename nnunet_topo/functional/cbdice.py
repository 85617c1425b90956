"""Soft centreline boundary Dice (cbDice) loss."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_topo.functional.cldice import harmonic_loss, sharpen
from nnunet_topo.functional.masks import spatial_axes
from nnunet_topo.functional.skeleton import iterations_for, mask_depth, mask_skeleton, soft_depth, soft_skeleton


def soft_cbdice_loss(
    probabilities: Tensor,
    onehot: Tensor,
    *,
    iterations: int | None = None,
    smooth: float = 1e-5,
    sharpness: float = 4.0,
    batch_dice: bool = False,
) -> Tensor:
    """One minus the mean soft cbDice of the structures: as clDice, but a skeleton voxel counts by the radius met there.

    On the labels' skeleton the prediction's depth is compared with the labels' depth, min(1, D(p) / D(y)), on the
    prediction's skeleton the other way round. A vessel that is found too thin costs sensitivity, one that is too thick
    precision, each relative to its own radius, so that thin and thick vessels count alike.

    The depths are sums of erosions. The prediction's is not taken of a thresholded mask, so a gap has a gradient:
    that of its own probability and, since every erosion near a gap takes its value from there, of many around it.

    Args:
        probabilities: (B, K, X, Y[, Z]) in [0, 1], 0 in ignored voxels.
        onehot: (B, K, X, Y[, Z]) bool, False in ignored voxels.
        iterations: erosions, as in `soft_cldice_loss`; radii beyond iterations + 1 count as that.
        smooth: > 0, in voxels of skeleton.
        sharpness: as in `soft_cldice_loss`.
        batch_dice: one ratio over batch and ranks instead of one a sample.

    Returns:
        () float in [0, 1], 0 is perfect. An absent structure of which nothing is predicted counts as perfect.

    Source:
        Shi et al., Centerline Boundary Dice Loss for Vascular Segmentation, MICCAI 2024. Differs from it in: soft
        city-block depths instead of distance maps of thresholded masks, ratios cut at 1 (so the loss is never
        negative), one ratio a structure, ignored voxels.
    """
    axes = spatial_axes(probabilities)
    erosions = iterations_for(onehot) if iterations is None else iterations
    label_skeleton, label_depth = mask_skeleton(onehot, erosions), mask_depth(onehot, erosions)
    skeleton = soft_skeleton(sharpen(probabilities, sharpness), erosions)
    depth = soft_depth(probabilities, erosions)
    common = torch.minimum(depth, label_depth)
    tiny = torch.finfo(depth.dtype).tiny
    sums = torch.stack(
        [
            (label_skeleton * common / label_depth.clamp_min(1)).sum(axes),
            label_skeleton.sum(axes).to(depth.dtype),
            (skeleton * (common / depth.clamp_min(tiny))).sum(axes),
            skeleton.sum(axes),
        ]
    )
    return harmonic_loss(sums, smooth=smooth, batch_dice=batch_dice)
