"""How wrong the wrong voxels of a set are, however few of them there are."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_topo.functional.gather import pool_samples
from nnunet_topo.functional.masks import safe_ratio, spatial_axes


def weakest_link_loss(error: Tensor, where: Tensor, *, power: float = 4.0, batch_dice: bool = False) -> Tensor:
    """Logarithm of the number of wrong voxels, as a share of that of all voxels in the set.

    One voxel decides whether a tube is whole. In a mean over the tube's thousand voxels it is a thousandth, and so is
    its gradient; here the first wrong voxel costs a tenth of what a thousand cost: log(1 + n) / log(1 + N). Every
    voxel counts error ** power, so that thousands that are 0.05 wrong, which change no topology, count nothing. The
    loss rises with every single error, and a voxel that is wrong for certain keeps its gradient.

    Args:
        error: (B, K, X, Y[, Z]) in [0, 1], the probability that a voxel is on the wrong side.
        where: (B, K, X, Y[, Z]), not 0 on the voxels that must be right.
        power: >= 1; 1 counts every small error in full.
        batch_dice: count over batch and ranks instead of in each sample.

    Returns:
        () float in [0, 1]; 0 with zero gradient where no voxel is in the set.
    """
    axes = spatial_axes(error)
    counted = where != 0
    wrong = torch.where(counted, error**power, 0.0)
    sums = torch.stack([wrong.sum(axes), counted.sum(axes).to(error.dtype)])
    number, most = pool_samples(sums, batch_dice)
    return safe_ratio(number.log1p(), most.log1p()).mean()
