"""One erosion of the soft skeleton and its gradient in PyTorch, and the choice between that and Triton kernels."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from subprocess import SubprocessError
from typing import Protocol

import torch
from torch import Tensor

from nnunet_topo.functional.morphology import dilate_cube, dilate_cube_backward, erode_cross, erode_cross_backward


class Steps(Protocol):
    """What this module and `skeleton_kernels` both have; images are (B, 1, X, Y[, Z]), contiguous, >= 0."""

    def erode_cross(self, x: Tensor) -> Tensor:
        """See `morphology.erode_cross`."""

    def erode_cross_backward(self, gradient: Tensor, x: Tensor, eroded: Tensor) -> Tensor:
        """See `morphology.erode_cross_backward`."""

    def add_residue(self, image: Tensor, eroded: Tensor, skeleton: Tensor) -> Tensor:
        """See below."""

    def residue_backward(
        self, image: Tensor, eroded: Tensor, skeleton: Tensor, to_skeleton: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See below."""


def _residue(image: Tensor, eroded: Tensor) -> Tensor:
    """What opening removes, max(0, image - opened)."""
    return (image - dilate_cube(eroded)).clamp_min_(0.0)


def add_residue(image: Tensor, eroded: Tensor, skeleton: Tensor) -> Tensor:
    """The skeleton with what opening removes from the image: s + r (1 - s), r = max(0, image - opened).

    Args:
        image: (B, 1, X, Y[, Z]) in [0, 1], or a mask as uint8.
        eroded: of the image, by `erode_cross`.
        skeleton: of the images before this one, same shape and dtype.

    Returns:
        Same shape and dtype.
    """
    if image.dtype == torch.uint8:
        return skeleton | (image > dilate_cube(eroded))
    return skeleton + _residue(image, eroded) * (1.0 - skeleton)


def residue_backward(
    image: Tensor, eroded: Tensor, skeleton: Tensor, to_skeleton: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of `add_residue`.

    Args:
        image: as in `add_residue`, floating-point.
        eroded: as in `add_residue`.
        skeleton: as in `add_residue`.
        to_skeleton: gradient with respect to its result.

    Returns:
        Gradients with respect to `image`, `eroded` (its negative) and `skeleton`.
    """
    residue = _residue(image, eroded)
    to_residue = to_skeleton * (1.0 - skeleton) * (residue > 0)
    to_previous = to_skeleton * residue.neg_().add_(1.0)
    return to_residue, dilate_cube_backward(to_residue, eroded), to_previous


class _Torch:
    """The functions of this module."""

    erode_cross = staticmethod(erode_cross)
    erode_cross_backward = staticmethod(erode_cross_backward)
    add_residue = staticmethod(add_residue)
    residue_backward = staticmethod(residue_backward)


def agree(one: Steps, other: Steps, device: torch.device) -> bool:
    """Whether two ways to take a step give the same on small images, as far as rounding allows."""
    generator = torch.Generator().manual_seed(0)
    # The last has several blocks, and edges of which Triton makes a variant of its own, as it does for usual patches.
    for edges in ((6, 7), (4, 5, 6), (4, 16, 16)):
        # Tenths: ties, as in real probabilities of 0 and 1, are where such kernels differ.
        image, skeleton, gradient = (
            torch.randint(0, 10, (2, 1, *edges), generator=generator, device="cpu").to(device, torch.float32) / 10
            for _ in range(3)
        )
        mask = (image > 0.3).to(torch.uint8)
        results = []
        for steps in (one, other):
            eroded = steps.erode_cross(image)
            backward = steps.residue_backward(image, eroded, skeleton, gradient)
            mask_step = steps.add_residue(mask, steps.erode_cross(mask), torch.zeros_like(mask))
            results.append(
                (
                    eroded,
                    steps.add_residue(image, eroded, skeleton),
                    *backward,
                    steps.erode_cross_backward(gradient, image, eroded),
                    mask_step,
                )
            )
        if not all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*results, strict=True)):
            return False
    return True


@cache
def _kernels(device: torch.device) -> Steps | None:
    """The kernels, if they run on this GPU and agree with PyTorch."""
    try:
        kernels = importlib.import_module("nnunet_topo.functional.skeleton_kernels")
    except (ImportError, OSError, ValueError):  # no Triton, or no source text for it to compile
        return None
    try:
        if agree(_Torch(), kernels, device):
            return kernels
        trouble = "their results differ from PyTorch's"
    # Triton needs a C compiler, a driver (it asserts one), a folder to write to and to load code from, and
    # a GPU that it knows; each is missing somewhere.
    except (AssertionError, ImportError, OSError, RuntimeError, SubprocessError, kernels.TritonError) as error:
        trouble = f"{type(error).__name__}: {error}"
    warnings.warn(f"skeleton: no Triton kernels on {device}, PyTorch does it slower. {trouble}", stacklevel=2)
    return None


def steps_for(images: Tensor) -> Steps:
    """Triton kernels for float32 images and masks on a GPU that runs them, otherwise PyTorch.

    The first call on a GPU compiles the kernels (seconds; Triton keeps them on disk) and compares them with PyTorch.

    Args:
        images: (B, 1, X, Y[, Z]).
    """
    suited = images.is_cuda and images.dtype in (torch.float32, torch.uint8)
    return (_kernels(images.device) if suited else None) or _Torch()
