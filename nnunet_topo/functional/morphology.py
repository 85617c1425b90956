"""Grey-value erosion and dilation by shifted minima and maxima, with their gradients.

Pooling layers would do, but store an int64 index for every voxel, are many times slower on a CPU, and can treat the
outside of the patch as foreground only (max-pooling pads with minus infinity). Here the outside is 0, background.
Inputs are >= 0. Gradients of ties are shared equally.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nnunet_topo.functional.masks import spatial_axes


def _extreme(x: Tensor, axes: Sequence[int], pick: Callable[..., Tensor]) -> Tensor:
    """Minimum or maximum over each voxel and its two neighbours along every one of `axes` that exist."""
    result = x.clone()
    for axis in axes:
        n = x.shape[axis] - 1
        first, last = result.narrow(axis, 0, n), result.narrow(axis, 1, n)
        pick(last, x.narrow(axis, 0, n), out=last)
        pick(first, x.narrow(axis, 1, n), out=first)
    return result


def _extreme_backward(gradient: Tensor, x: Tensor, result: Tensor, axes: Sequence[int]) -> Tensor:
    """Gradient with respect to `x`, given the one with respect to `result = _extreme(x, axes, ...)`."""
    chosen = x == result
    ties = chosen.to(gradient.dtype)
    for axis in axes:
        n = x.shape[axis] - 1
        ties.narrow(axis, 1, n).add_(x.narrow(axis, 0, n) == result.narrow(axis, 1, n))
        ties.narrow(axis, 0, n).add_(x.narrow(axis, 1, n) == result.narrow(axis, 0, n))
    share = gradient / ties.clamp_min_(1.0)
    total = share * chosen
    for axis in axes:
        n = x.shape[axis] - 1
        to_previous = x.narrow(axis, 0, n) == result.narrow(axis, 1, n)
        total.narrow(axis, 0, n).addcmul_(share.narrow(axis, 1, n), to_previous.to(share.dtype))
        to_next = x.narrow(axis, 1, n) == result.narrow(axis, 0, n)
        total.narrow(axis, 1, n).addcmul_(share.narrow(axis, 0, n), to_next.to(share.dtype))
    return total


def _clear_border(x: Tensor) -> Tensor:
    for axis in spatial_axes(x):
        x.narrow(axis, 0, 1).zero_()
        x.narrow(axis, x.shape[axis] - 1, 1).zero_()
    return x


def erode_cross(x: Tensor) -> Tensor:
    """Minimum over a voxel and its 2 n face neighbours, the outside of the patch being 0. No gradient of its own."""
    return _clear_border(_extreme(x, spatial_axes(x), torch.minimum))


def erode_cross_backward(gradient: Tensor, x: Tensor, eroded: Tensor) -> Tensor:
    """Gradient with respect to `x`, given the one with respect to `eroded = erode_cross(x)`."""
    # On the border of the patch the minimum is the 0 outside: no voxel > 0 equals it, and none gets a gradient.
    return _extreme_backward(gradient, x, eroded, spatial_axes(x))


def dilate_cube(x: Tensor) -> Tensor:
    """Maximum over the 3^n neighbourhood. No gradient of its own: see `dilate`."""
    for axis in spatial_axes(x):
        x = _extreme(x, (axis,), torch.maximum)
    return x


def dilate_cube_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """Gradient with respect to `x`, given the one with respect to `dilate_cube(x)`."""
    stages = [x]
    for axis in spatial_axes(x):
        stages.append(_extreme(stages[-1], (axis,), torch.maximum))
    for axis in reversed(spatial_axes(x)):
        result = stages.pop()
        gradient = _extreme_backward(gradient, stages[-1], result, (axis,))
    return gradient


class _Dilate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, radius: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.radius = radius
        for _ in range(radius):
            x = dilate_cube(x)
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        stages = [ctx.saved_tensors[0]]
        for _ in range(ctx.radius - 1):
            stages.append(dilate_cube(stages[-1]))
        for stage in reversed(stages):
            gradient = dilate_cube_backward(gradient, stage)
        return gradient, None


def dilate(x: Tensor, radius: int = 1) -> Tensor:
    """Maximum over a cube of edge 2 * radius + 1, differentiable; keeps only `x` for the backward pass.

    Args:
        x: (B, K, X, Y[, Z]) >= 0.
        radius: voxels, >= 0.

    Returns:
        Same shape and dtype.
    """
    return _Dilate.apply(x, radius) if radius else x
