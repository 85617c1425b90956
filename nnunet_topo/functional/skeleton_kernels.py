"""The steps of the soft skeleton as Triton kernels: `skeleton_step` with each value read and written once.

PyTorch's shifted minima and maxima read and write the whole image some ten times an erosion, which is what they cost on
a GPU. Tensors are contiguous, one-channel images: (B, 1, X, Y[, Z]). Triton comes with PyTorch's builds for GPUs. A NaN
does not spread here as it does in PyTorch: it shows in the losses' sums over the probabilities.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.errors import TritonError

__all__ = ["TritonError", "add_residue", "erode_cross", "erode_cross_backward", "residue_backward"]

_BLOCK = 512
"""Voxels of a program: four warps with four voxels a thread."""


@triton.jit
def _position(voxels, BLOCK: tl.constexpr):
    """Index of each voxel in its image, whether it exists, and the offset of the image."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    return index, index < voxels, tl.program_id(1).to(tl.int64) * voxels


@triton.jit
def _near(image, index, inside, position, step, size, stride, outside):
    """The values `step` voxels away along an axis; `outside` beyond the border."""
    there = position + step
    return tl.load(image + index + step * stride, mask=inside & (there >= 0) & (there < size), other=outside)


@triton.jit
def _erode_kernel(x, result, X, Y, Z, VOLUME: tl.constexpr, BLOCK: tl.constexpr):
    index, inside, offset = _position(X * Y * Z, BLOCK)
    i, j, k = index // (Y * Z), index // Z % Y, index % Z
    least = tl.load(x + offset + index, mask=inside, other=0)
    for step in tl.static_range(-1, 2, 2):
        if VOLUME:
            least = tl.minimum(least, _near(x + offset, index, inside, i, step, X, Y * Z, 0))
        least = tl.minimum(least, _near(x + offset, index, inside, j, step, Y, Z, 0))
        least = tl.minimum(least, _near(x + offset, index, inside, k, step, Z, 1, 0))
    tl.store(result + offset + index, least, mask=inside)


@triton.jit
def _add_residue_kernel(image, eroded, skeleton, result, X, Y, Z, RANGE: tl.constexpr, BLOCK: tl.constexpr):
    index, inside, offset = _position(X * Y * Z, BLOCK)
    i, j, k = index // (Y * Z), index // Z % Y, index % Z
    opened = tl.load(eroded + offset + index, mask=inside, other=0)
    for a in tl.static_range(-RANGE, RANGE + 1):
        for b in tl.static_range(-1, 2):
            row = inside & (i + a >= 0) & (i + a < X) & (j + b >= 0) & (j + b < Y)
            for c in tl.static_range(-1, 2):
                shift = (a * Y + b) * Z
                opened = tl.maximum(opened, _near(eroded + offset + shift, index, row, k, c, Z, 1, 0))
    value = tl.load(image + offset + index, mask=inside, other=0)
    found = tl.load(skeleton + offset + index, mask=inside, other=0)
    lost = tl.where(value > opened, value - opened, 0)
    tl.store(result + offset + index, found + lost * (1 - found), mask=inside)


@triton.jit
def _maximum_kernel(x, result, voxels, size, stride, BLOCK: tl.constexpr):
    index, inside, offset = _position(voxels, BLOCK)
    position = index // stride % size
    most = tl.load(x + offset + index, mask=inside, other=0)
    most = tl.maximum(most, _near(x + offset, index, inside, position, -1, size, stride, 0))
    most = tl.maximum(most, _near(x + offset, index, inside, position, 1, size, stride, 0))
    tl.store(result + offset + index, most, mask=inside)


@triton.jit
def _share(gradient, before, value, after):
    """The gradient of a maximum of three, divided by the number of those that reach it."""
    most = tl.maximum(tl.maximum(before, value), after)
    ties = (before == most).to(tl.float32) + (value == most).to(tl.float32) + (after == most).to(tl.float32)
    return gradient / ties, most


@triton.jit
def _maximum_backward_kernel(gradient, x, result, voxels, size, stride, BLOCK: tl.constexpr):
    index, inside, offset = _position(voxels, BLOCK)
    position = index // stride % size
    gradient += offset
    x += offset
    # Images are >= 0: no maximum is reached outside.
    x0 = _near(x, index, inside, position, -2, size, stride, -1.0)
    x1 = _near(x, index, inside, position, -1, size, stride, -1.0)
    x2 = tl.load(x + index, mask=inside, other=-1.0)
    x3 = _near(x, index, inside, position, 1, size, stride, -1.0)
    x4 = _near(x, index, inside, position, 2, size, stride, -1.0)
    own, most = _share(tl.load(gradient + index, mask=inside, other=0.0), x1, x2, x3)
    total = tl.where(x2 == most, own, 0.0)
    following, most = _share(_near(gradient, index, inside, position, 1, size, stride, 0.0), x2, x3, x4)
    total += tl.where(x2 == most, following, 0.0)
    previous, most = _share(_near(gradient, index, inside, position, -1, size, stride, 0.0), x0, x1, x2)
    total += tl.where(x2 == most, previous, 0.0)
    tl.store(result + offset + index, total, mask=inside)


@triton.jit
def _residue_backward_kernel(
    image, stage, skeleton, to_skeleton, to_residue, to_previous, voxels, size, BLOCK: tl.constexpr
):
    index, inside, offset = _position(voxels, BLOCK)
    position = index % size
    opened = tl.load(stage + offset + index, mask=inside, other=0.0)
    opened = tl.maximum(opened, _near(stage + offset, index, inside, position, -1, size, 1, 0.0))
    opened = tl.maximum(opened, _near(stage + offset, index, inside, position, 1, size, 1, 0.0))
    value = tl.load(image + offset + index, mask=inside, other=0.0)
    found = tl.load(skeleton + offset + index, mask=inside, other=0.0)
    gradient = tl.load(to_skeleton + offset + index, mask=inside, other=0.0)
    tl.store(to_residue + offset + index, tl.where(value > opened, gradient * (1.0 - found), 0.0), mask=inside)
    lost = tl.where(value > opened, value - opened, 0.0)
    tl.store(to_previous + offset + index, gradient * (1.0 - lost), mask=inside)


@triton.jit
def _erode_share_kernel(gradient, x, eroded, share, X, Y, Z, VOLUME: tl.constexpr, BLOCK: tl.constexpr):
    index, inside, offset = _position(X * Y * Z, BLOCK)
    i, j, k = index // (Y * Z), index // Z % Y, index % Z
    least = tl.load(eroded + offset + index, mask=inside, other=0.0)
    ties = (tl.load(x + offset + index, mask=inside, other=-1.0) == least).to(tl.float32)
    for step in tl.static_range(-1, 2, 2):
        if VOLUME:
            ties += (_near(x + offset, index, inside, i, step, X, Y * Z, -1.0) == least).to(tl.float32)
        ties += (_near(x + offset, index, inside, j, step, Y, Z, -1.0) == least).to(tl.float32)
        ties += (_near(x + offset, index, inside, k, step, Z, 1, -1.0) == least).to(tl.float32)
    # On the border of the patch the minimum is the 0 outside, which no voxel may equal.
    own = tl.load(gradient + offset + index, mask=inside, other=0.0) / tl.maximum(ties, 1.0)
    tl.store(share + offset + index, own, mask=inside)


@triton.jit
def _from(share, eroded, value, index, inside, position, step, size, stride):
    """What a neighbour passes on, if this voxel is its minimum."""
    least = _near(eroded, index, inside, position, step, size, stride, -1.0)
    return tl.where(least == value, _near(share, index, inside, position, step, size, stride, 0.0), 0.0)


@triton.jit
def _erode_gather_kernel(share, x, eroded, result, X, Y, Z, VOLUME: tl.constexpr, BLOCK: tl.constexpr):
    index, inside, offset = _position(X * Y * Z, BLOCK)
    i, j, k = index // (Y * Z), index // Z % Y, index % Z
    share += offset
    eroded += offset
    value = tl.load(x + offset + index, mask=inside, other=0.0)
    total = _from(share, eroded, value, index, inside, k, 0, Z, 1)
    if VOLUME:
        total += _from(share, eroded, value, index, inside, i, 1, X, Y * Z)
        total += _from(share, eroded, value, index, inside, i, -1, X, Y * Z)
    total += _from(share, eroded, value, index, inside, j, 1, Y, Z)
    total += _from(share, eroded, value, index, inside, j, -1, Y, Z)
    total += _from(share, eroded, value, index, inside, k, 1, Z, 1)
    total += _from(share, eroded, value, index, inside, k, -1, Z, 1)
    tl.store(result + offset + index, total, mask=inside)


def _run(kernel: Any, *arguments: Any, images: Tensor, **constants: Any) -> None:
    """Runs a kernel for every voxel of every image."""
    grid = (triton.cdiv(images[0].numel(), _BLOCK), len(images))
    # Triton takes the current device, whatever its arguments lie on.
    with torch.cuda.device(images.device) if images.is_cuda else nullcontext():
        # Fused products round otherwise than PyTorch's.
        kernel[grid](*arguments, BLOCK=_BLOCK, enable_fp_fusion=False, **constants)


def _edges(images: Tensor) -> tuple[int, int, int]:
    x, y, z = images.shape[2:] if images.ndim == 5 else (1, *images.shape[2:])
    return x, y, z


def erode_cross(x: Tensor) -> Tensor:
    """As `skeleton_step.erode_cross`."""
    result = torch.empty_like(x)
    _run(_erode_kernel, x, result, *_edges(x), images=x, VOLUME=x.ndim == 5)
    return result


def erode_cross_backward(gradient: Tensor, x: Tensor, eroded: Tensor) -> Tensor:
    """As `skeleton_step.erode_cross_backward`."""
    share, result = torch.empty_like(x), torch.empty_like(x)
    volume = x.ndim == 5
    _run(_erode_share_kernel, gradient.contiguous(), x, eroded, share, *_edges(x), images=x, VOLUME=volume)
    _run(_erode_gather_kernel, share, x, eroded, result, *_edges(x), images=x, VOLUME=volume)
    return result


def add_residue(image: Tensor, eroded: Tensor, skeleton: Tensor) -> Tensor:
    """As `skeleton_step.add_residue`."""
    result = torch.empty_like(image)
    reach = int(image.ndim == 5)
    _run(_add_residue_kernel, image, eroded, skeleton, result, *_edges(image), images=image, RANGE=reach)
    return result


def residue_backward(
    image: Tensor, eroded: Tensor, skeleton: Tensor, to_skeleton: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `skeleton_step.residue_backward`."""
    sizes = image.shape[2:]
    voxels = sizes.numel()
    strides = [sizes[axis + 1 :].numel() for axis in range(len(sizes))]
    stages = [eroded]
    for size, stride in zip(sizes[:-1], strides[:-1], strict=True):
        stages.append(torch.empty_like(eroded))
        _run(_maximum_kernel, *stages[-2:], voxels, size, stride, images=image)
    to_residue, to_previous = torch.empty_like(image), torch.empty_like(image)
    _run(
        _residue_backward_kernel,
        *(image, stages[-1], skeleton, to_skeleton.contiguous(), to_residue, to_previous, voxels, sizes[-1]),
        images=image,
    )
    to_opened = to_residue
    for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
        gradient, to_opened = to_opened, torch.empty_like(image)
        _run(_maximum_backward_kernel, gradient, stages.pop(), to_opened, voxels, size, stride, images=image)
    return to_residue, to_opened, to_previous
