"""Agreement of dilated prediction and dilated labels."""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_topo.functional.gather import pool_voxels
from nnunet_topo.functional.masks import safe_ratio, select_valid
from nnunet_topo.functional.morphology import dilate, dilate_cube


def connectivity_loss(
    probabilities: Tensor,
    onehot: Tensor,
    count: Tensor,
    *,
    valid: Tensor | None = None,
    kernel_size: int = 3,
    batch_dice: bool = False,
) -> Tensor:
    """Mean squared difference of the dilated prediction and the dilated labels.

    The diary's name for it promises too much: it knows nothing of connectivity. It measures whether prediction and
    labels agree after both have been dilated, so a gap or bridge of up to kernel_size - 1 voxels is invisible, which is
    the very defect that topology is about. Use cldice for those.

    Args:
        probabilities: (B, K, X, Y[, Z]) in [0, 1], 0 in ignored voxels.
        onehot: (B, K, X, Y[, Z]) bool, False in ignored voxels.
        count: () number of valid voxels in the batch.
        valid: (B, 1, X, Y[, Z]) bool or None.
        kernel_size: edge of the cube, odd, voxels.
        batch_dice: pool over ranks too.

    Returns:
        () float in [0, 1]; 0 with zero gradient when nothing is valid.
    """
    radius = kernel_size // 2
    labelled = onehot.to(torch.uint8)
    for _ in range(radius):
        labelled = dilate_cube(labelled)
    difference = select_valid(dilate(probabilities, radius) - labelled, valid)
    total = (difference * difference).sum()
    return safe_ratio(*pool_voxels(total, count * onehot.shape[1], batch_dice))
