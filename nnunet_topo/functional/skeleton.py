"""Soft skeleton."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nnunet_topo.functional.morphology import dilate_cube, dilate_cube_backward, erode_cross, erode_cross_backward


def _lost_by_opening(image: Tensor, eroded: Tensor) -> Tensor:
    return (image - dilate_cube(eroded)).clamp_min_(0.0)


class _SoftSkeleton(torch.autograd.Function):
    """Keeps its input alone; the backward pass repeats the forward one.

    While it runs, it holds an eroded image and a skeleton of every iteration, 8 bytes a voxel each in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, iterations: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.iterations = iterations
        skeleton = torch.zeros_like(x)
        for _ in range(iterations):
            eroded = erode_cross(x)
            skeleton += _lost_by_opening(x, eroded) * (1.0 - skeleton)
            x = eroded
        return skeleton.add_(x * (1.0 - skeleton))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        images, skeletons = [ctx.saved_tensors[0]], [torch.zeros_like(gradient)]
        for _ in range(ctx.iterations):
            images.append(erode_cross(images[-1]))
            found = _lost_by_opening(*images[-2:])
            skeletons.append(skeletons[-1] + found * (1.0 - skeletons[-1]))
        to_skeleton = gradient * (1.0 - images[-1])
        to_image = gradient * (1.0 - skeletons.pop())
        while skeletons:
            skeleton, eroded, image = skeletons.pop(), images.pop(), images[-1]
            found = _lost_by_opening(image, eroded)
            to_found = to_skeleton * (1.0 - skeleton) * (found > 0)
            to_skeleton = to_skeleton * (1.0 - found)
            to_eroded = to_image - dilate_cube_backward(to_found, eroded)
            to_image = to_found + erode_cross_backward(to_eroded, image, eroded)
        return to_image, None


def soft_skeleton(x: Tensor, iterations: int = 10) -> Tensor:
    """Soft skeleton by repeated erosion and opening; for sheets it is the medial surface.

    Whatever is left after the last erosion is added to the skeleton. Without it, a structure more than about
    2 * iterations voxels thick would have an empty skeleton, and a cut through it would cost nothing. Where the
    structure is thinner, nothing is left and the result is the usual soft skeleton.

    The outside of the patch is background: a band that runs along the border of the patch has its skeleton in its
    middle, not on the border.

    Args:
        x: (B, K, X, Y[, Z]) in [0, 1], 0 in ignored voxels.
        iterations: erosions, >= 1; half the largest thickness in voxels is enough. Time grows with it, and so does
            the memory that the backward pass takes while it runs; the memory kept until then does not.

    Returns:
        Same shape and dtype, in [0, 1].

    Source:
        Shit et al., clDice, CVPR 2021, algorithm 1 (erosion by a cross, dilation by a cube). Differs from it in: the
        remainder, and the outside.
    """
    return _SoftSkeleton.apply(x, iterations)
