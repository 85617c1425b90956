"""Errors weighted by their distance from the labels' boundary."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nnunet_topo.functional.gather import pool_samples
from nnunet_topo.functional.masks import safe_ratio, select_valid, spatial_axes

_SMOOTH = 1e-12  # of a sum of squared shares of the diagonal: far below that of a single voxel


def distance_weights(
    signed_distance: Tensor, valid: Tensor | None, spacing: Sequence[float] | None, dtype: torch.dtype
) -> Tensor:
    """Distance to the boundary as a share of the diagonal of the patch, 0 in ignored voxels.

    Where a structure is absent or everywhere there is no boundary: every voxel then counts as a diagonal away.

    Args:
        signed_distance: (B, K, X, Y[, Z]) in units of the smallest voxel edge.
        valid: (B, 1, X, Y[, Z]) bool or None.
        spacing: voxel edges, or None for cubic voxels.
        dtype: of the result, float32 or float64.

    Returns:
        (B, K, X, Y[, Z]) in [0, 1].
    """
    shape = signed_distance.shape[2:]
    edges = (1.0,) * len(shape) if spacing is None else spacing
    diagonal = math.hypot(*(n * edge / min(edges) for n, edge in zip(shape, edges, strict=True)))
    return select_valid(signed_distance.to(dtype).abs().clamp_max(diagonal) / diagonal, valid)


def kervadec_loss(probabilities: Tensor, onehot: Tensor, weights: Tensor, *, batch_dice: bool = False) -> Tensor:
    """Sum of |p - y| times the distance to the boundary, as a share of the sum of all distances.

    The integral of Kervadec et al., sum of p * phi with phi the signed distance, less its least value (that of a
    perfect prediction) and divided by its range: what is wrong counts by how far it is from the boundary. It is linear
    in p and its scale depends neither on the size of the patch nor on the voxel size. Near the boundary it says next to
    nothing, and to a structure of two voxels' width everything is near: never alone, and not for thin structures.

    Args:
        probabilities: (B, K, X, Y[, Z]) in [0, 1], 0 in ignored voxels.
        onehot: (B, K, X, Y[, Z]) bool, False in ignored voxels.
        weights: (B, K, X, Y[, Z]) from `distance_weights`.
        batch_dice: one ratio over batch and ranks instead of one a sample.

    Returns:
        () float in [0, 1], 0 is perfect, 1 is wrong everywhere; 0 with zero gradient when nothing is valid.

    Source:
        Kervadec et al., Boundary loss for highly unbalanced segmentation, MIDL 2019, eq. 5. Differs from it in: the
        constant and the factor.
    """
    axes = spatial_axes(probabilities)
    error = torch.where(onehot, 1.0 - probabilities, probabilities)
    wrong, everything = pool_samples(torch.stack([(weights * error).sum(axes), weights.sum(axes)]), batch_dice)
    return safe_ratio(wrong, everything).mean()


def hausdorff_loss(
    probabilities: Tensor, onehot: Tensor, weights: Tensor, *, alpha: float = 2.0, batch_dice: bool = False
) -> Tensor:
    """Sum of d^alpha * (p - y)^2 over the sum of d^alpha * (p^2 + y^2), d the distance to the labels' boundary.

    A Dice in which errors count by how far they are from the boundary, so that a distant island costs most: what the
    Hausdorff distance is about. One-sided: the distance is the labels' alone, which spares a distance transform of the
    prediction in every step. Its scale depends neither on the size of the patch nor on the voxel size.

    Args:
        probabilities: (B, K, X, Y[, Z]) in [0, 1], 0 in ignored voxels.
        onehot: (B, K, X, Y[, Z]) bool, False in ignored voxels.
        weights: (B, K, X, Y[, Z]) from `distance_weights`.
        alpha: > 0; the larger, the more only the most distant error counts.
        batch_dice: one ratio over batch and ranks instead of one a sample.

    Returns:
        () float in [0, 1], 0 is perfect, 1 is a missed or a disjoint structure; an absent structure of which nothing is
        predicted counts as perfect.

    Source:
        Karimi and Salcudean, Reducing the Hausdorff distance in medical image segmentation with convolutional neural
        networks, IEEE TMI 2020, the one-sided variant of the distance transform loss. Differs from it in: the
        denominator (theirs is the number of voxels).
    """
    axes = spatial_axes(probabilities)
    emphasis = weights**alpha
    error = torch.where(onehot, 1.0 - probabilities, probabilities) ** 2
    sums = torch.stack([(emphasis * error).sum(axes), (emphasis * (probabilities**2 + onehot)).sum(axes)])
    wrong, total = pool_samples(sums, batch_dice)
    return (wrong / (total + _SMOOTH)).mean()
