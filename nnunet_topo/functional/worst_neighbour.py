"""Same-class neighbour penalisation (SCNP): each voxel is judged by its worst neighbour of the same class."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nnunet_topo.functional.masks import spatial_axes


def worst_neighbour(scores: Tensor, member: Tensor, valid: Tensor | None = None, *, radius: int = 1) -> Tensor:
    """Scores with every voxel's replaced by the worst in its neighbourhood among voxels of its own class.

    Inside a structure the worst is the lowest score, outside the highest. A voxel beside a gap is then as wrong as the
    gap itself, so any loss of these scores pushes hardest where few voxels spoil many.

    Args:
        scores: (B, C, X, Y[, Z]) float, logits or margins: larger means more of channel c.
        member: (B, C, X, Y[, Z]) bool, whether the voxel belongs to channel c.
        valid: (B, 1, X, Y[, Z]) bool or None; ignored voxels are nobody's neighbour and keep their scores.
        radius: voxels >= 1, the neighbourhood is a cube of edge 2 * radius + 1.

    Returns:
        Same shape and dtype; the gradient of each goes to the voxel it was taken from.

    Source:
        Same-class neighbour penalization (SCNP), CVPR 2026, arXiv 2603.18671. Differs from it in: no finite stand-in
        for "not of this class", so that logits of any size keep their order.
    """
    return _WorstNeighbour.apply(scores, member, valid, radius)


class _WorstNeighbour(torch.autograd.Function):
    """Keeps its input; the maxima's positions, 8 bytes each, are found again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, member: Tensor, valid: Tensor | None, radius: int) -> Tensor:
        ctx.save_for_backward(scores, member, valid)
        ctx.radius = radius
        return _worst(scores, member, valid, radius)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        scores, member, valid = ctx.saved_tensors
        with torch.enable_grad():
            again = scores.detach().requires_grad_()
            result = _worst(again, member, valid, ctx.radius)
        return torch.autograd.grad(result, again, gradient)[0], None, None, None


def _worst(scores: Tensor, member: Tensor, valid: Tensor | None, radius: int) -> Tensor:
    kept = member if valid is None else member & valid
    outside = ~member if valid is None else ~member & valid
    lowest = -_maximum(torch.where(kept, -scores, -math.inf), radius)
    highest = _maximum(torch.where(outside, scores, -math.inf), radius)
    result = torch.where(member, lowest, highest)
    return result if valid is None else torch.where(valid, result, scores)


def _maximum(x: Tensor, radius: int) -> Tensor:
    """Maximum over a cube; the outside of the patch is nobody's neighbour."""
    pool = torch.nn.functional.max_pool3d if len(spatial_axes(x)) == 3 else torch.nn.functional.max_pool2d
    return pool(x, 2 * radius + 1, stride=1, padding=radius)
