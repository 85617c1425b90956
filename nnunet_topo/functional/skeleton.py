"""Soft skeleton and soft depth of a grey-value image, and the skeleton of a mask by the same rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nnunet_topo.functional.skeleton_step import Steps, steps_for

MOST_ITERATIONS = 16
"""What `iterations_for` gives at most: structures more than about twice as thick keep a core."""

_VOXELS_AT_ONCE = (
    1 << 22
)  # bounds the memory of the backward pass, and keeps the number of kernels low for small images


def _skeletonise(steps: Steps, image: Tensor, skeleton: Tensor, iterations: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Image and skeleton before the first iteration and after each."""
    yield image, skeleton
    for _ in range(iterations):
        eroded = steps.erode_cross(image)
        skeleton = steps.add_residue(image, eroded, skeleton)
        image = eroded
        yield image, skeleton


def _skeleton_backward(x: Tensor, iterations: int, gradient: Tensor) -> Tensor:
    """Gradient with respect to `x`; holds the states of one segment of iterations, and the first one of each."""
    length = math.isqrt(max(iterations - 1, 1)) + 1
    starts = range(0, iterations, length)
    firsts = []
    steps = steps_for(x)
    for i, state in enumerate(_skeletonise(steps, x, torch.zeros_like(x), iterations)):
        if i in starts:
            firsts.append(state)
    image, skeleton = state
    to_skeleton, to_image = gradient * (1.0 - image), gradient * (1.0 - skeleton)
    del image, skeleton, state
    for start in reversed(starts):
        states = list(_skeletonise(steps, *firsts.pop(), min(length, iterations - start)))
        eroded = states.pop()[0]
        while states:
            image, skeleton = states.pop()
            to_residue, to_opened, to_skeleton = steps.residue_backward(image, eroded, skeleton, to_skeleton)
            to_image = to_residue.add_(steps.erode_cross_backward(to_image - to_opened, image, eroded))
            eroded = image
    return to_image


def _depth_backward(x: Tensor, iterations: int, gradient: Tensor) -> Tensor:
    images, steps = [x], steps_for(x)
    for _ in range(iterations):
        images.append(steps.erode_cross(images[-1]))
    to_image = gradient
    while len(images) > 1:
        eroded = images.pop()
        to_image = gradient + steps.erode_cross_backward(to_image, images[-1], eroded)
    return to_image


def _groups(iterations: Sequence[int], voxels: int) -> Iterator[tuple[int, slice | list[int]]]:
    """A number of iterations, and the images that want it, as many as are done at once."""
    size = max(1, _VOXELS_AT_ONCE // voxels)
    for n in sorted(set(iterations)):
        members = [i for i, own in enumerate(iterations) if own == n]
        for start in range(0, len(members), size):
            group = members[start : start + size]
            first, last = group[0], group[-1]
            # A slice copies nothing, and no list of indices to a GPU.
            yield n, slice(first, last + 1) if last - first + 1 == len(group) else group


class _SoftSkeleton(torch.autograd.Function):
    """Keeps its input alone; the backward pass repeats the forward one."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, iterations: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(images)
        ctx.iterations = iterations
        result = torch.empty_like(images)
        for n, members in _groups(iterations, images[0].numel()):
            for state in _skeletonise(steps_for(images), images[members], torch.zeros_like(images[members]), n):
                image, skeleton = state
            result[members] = skeleton + image * (1.0 - skeleton)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (images,) = ctx.saved_tensors
        result = torch.empty_like(images)
        for n, members in _groups(ctx.iterations, images[0].numel()):
            result[members] = _skeleton_backward(images[members], n, gradient[members])
        return result, None


class _SoftDepth(torch.autograd.Function):
    """Keeps its input alone; the backward pass repeats the forward one."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, iterations: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(images)
        ctx.iterations = iterations
        result = torch.empty_like(images)
        for n, members in _groups(iterations, images[0].numel()):
            result[members] = _depth(images[members], n)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (images,) = ctx.saved_tensors
        result = torch.empty_like(images)
        for n, members in _groups(ctx.iterations, images[0].numel()):
            result[members] = _depth_backward(images[members], n, gradient[members])
        return result, None


def _depth(image: Tensor, iterations: int) -> Tensor:
    total, steps = image.clone(), steps_for(image)
    for _ in range(iterations):
        image = steps.erode_cross(image)
        total += image
    return total


def _each(x: Tensor, iterations: int | Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """(B, K, ...) as a batch of B * K one-channel images, and the iterations of each."""
    images = x.reshape(-1, 1, *x.shape[2:]).contiguous()
    return images, (iterations,) * len(images) if isinstance(iterations, int) else tuple(iterations)


def soft_skeleton(x: Tensor, iterations: int | Sequence[int] = 10) -> Tensor:
    """Soft skeleton by repeated erosion and opening; for sheets it is the medial surface.

    Whatever is left after the last erosion is added to the skeleton. Without it, a structure more than about
    2 * iterations voxels thick would have an empty skeleton, and a cut through it would cost nothing. Where the
    structure is thinner, nothing is left and the result is the usual soft skeleton.

    The outside of the patch is background: a band that runs along the border of the patch has its skeleton in its
    middle, not on the border.

    Args:
        x: (B, K, X, Y[, Z]) in [0, 1], 0 in ignored voxels.
        iterations: erosions, >= 1, one number or one for each of the B * K images, sample by sample; half the largest
            thickness in voxels is enough. Time grows with it, and so does the memory that the backward pass takes while
            it runs (with its square root); the memory kept until then does not.

    Returns:
        Same shape and dtype, in [0, 1].

    Source:
        Shit et al., clDice, CVPR 2021, algorithm 1 (erosion by a cross, dilation by a cube). Differs from it in: the
        remainder, and the outside.
    """
    return _SoftSkeleton.apply(*_each(x, iterations)).reshape(x.shape)


def soft_depth(x: Tensor, iterations: int | Sequence[int] = 10) -> Tensor:
    """Sum of the image and its erosions: how many layers lie between a voxel and the background, softly.

    In a mask it is the city-block distance to the nearest background voxel, at most iterations + 1.

    Args:
        x: (B, K, X, Y[, Z]) in [0, 1], 0 in ignored voxels.
        iterations: as in `soft_skeleton`.

    Returns:
        Same shape and dtype, >= x.
    """
    return _SoftDepth.apply(*_each(x, iterations)).reshape(x.shape)


def mask_skeleton(mask: Tensor, iterations: int | Sequence[int] = 10) -> Tensor:
    """`soft_skeleton` of a mask, in a byte a voxel.

    Args:
        mask: (B, K, X, Y[, Z]) bool.
        iterations: as in `soft_skeleton`.

    Returns:
        (B, K, X, Y[, Z]) uint8, 0 or 1. It needs no gradient.
    """
    images, each = _each(mask.to(torch.uint8), iterations)
    result = torch.empty_like(images)
    for n, members in _groups(each, images[0].numel()):
        for state in _skeletonise(steps_for(images), images[members], torch.zeros_like(images[members]), n):
            image, skeleton = state
        result[members] = skeleton | image
    return result.reshape(mask.shape)


def mask_depth(mask: Tensor, iterations: int | Sequence[int] = 10) -> Tensor:
    """`soft_depth` of a mask, in a byte a voxel.

    Args:
        mask: (B, K, X, Y[, Z]) bool.
        iterations: as in `soft_skeleton`.

    Returns:
        (B, K, X, Y[, Z]) uint8, or int16 for more than 254 iterations.
    """
    images, each = _each(mask.to(torch.uint8), iterations)
    images = images.to(torch.int16) if max(each) > 254 else images
    result = torch.empty_like(images)
    for n, members in _groups(each, images[0].numel()):
        result[members] = _depth(images[members], n)
    return result.reshape(mask.shape)


def iterations_for(mask: Tensor) -> list[int]:
    """Iterations that bring each structure of each sample down to its skeleton: the erosions it survives, and two more.

    On a GPU this waits for the device, once.

    Args:
        mask: (B, K, X, Y[, Z]) bool.

    Returns:
        B * K numbers from 2 to `MOST_ITERATIONS`, sample by sample.
    """
    image = mask.to(torch.uint8).reshape(-1, 1, *mask.shape[2:]).contiguous()
    survived = torch.zeros(len(image), dtype=torch.int64, device=mask.device)
    steps = steps_for(image)
    for _ in range(MOST_ITERATIONS - 2):
        image = steps.erode_cross(image)
        left = image.flatten(1).amax(1)
        # Stopping early saves time on a CPU; a GPU would have to be waited for each time.
        if mask.device.type == "cpu" and not left.any():
            break
        survived += left
    return (survived + 2).tolist()
