"""Targets that depend on labels alone: computed in data loading workers, or on the spot when none are handed in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_topo.errors import ConfigError, nearest
from nnunet_topo.functional.barrier import separation_barrier
from nnunet_topo.functional.components import component_ids
from nnunet_topo.functional.distance import signed_distance
from nnunet_topo.functional.gap_surface import gap_surface
from nnunet_topo.functional.thinning import medial_surface, skeleton

LabelTarget = Callable[..., NDArray[Any]]


def _each_structure(thin: Callable[[NDArray[np.bool_]], NDArray[np.bool_]]) -> LabelTarget:
    """The thinning of each structure on its own: the lumen and the wall of a vessel both keep their skeletons."""

    def target(
        onehot: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None, spacing: Sequence[float] | None = None
    ) -> NDArray[np.uint8]:
        return np.stack([thin(mask if valid is None else mask & valid) for mask in onehot]).astype(np.uint8)

    return target


LABEL_TARGETS: dict[str, LabelTarget] = {
    "signed_distance": signed_distance,
    "skeleton": _each_structure(skeleton),
    "medial_surface": _each_structure(medial_surface),
    "components": component_ids,
    "separation_barrier": separation_barrier,
    "gap_surface": gap_surface,
}
"""name -> f(onehot (K, X, Y[, Z]) bool, valid (X, Y[, Z]) bool or None, spacing or None) -> (K, X, Y[, Z])."""


def label_target(name: str, onehot: Tensor, valid: Tensor | None, spacing: Sequence[float] | None) -> Tensor:
    """The label-derived target `name` of a batch.

    Args:
        name: a key of `LABEL_TARGETS`.
        onehot: (B, K, X, Y[, Z]) bool.
        valid: (B, 1, X, Y[, Z]) bool or None.
        spacing: voxel edges in the order of the spatial axes, or None for cubic voxels.

    Returns:
        (B, K, X, Y[, Z]) on the device of `onehot`: float16 for distances, uint8 (0 or 1) for skeletons, barriers and
        gaps, int16 for components. On a GPU the labels travel to the CPU and back.

    Raises:
        ConfigError: unknown name.
        ShapeError: `spacing` has not one value for each axis.
    """
    if name not in LABEL_TARGETS:
        raise ConfigError(
            f"target: expected one of {sorted(LABEL_TARGETS)}, got {name!r}.{nearest(name, LABEL_TARGETS)}"
        )
    # torch.compile would translate the numpy, and loses what is written through a reversed view. Nothing is compiled
    # where dynamo was never imported, which takes a second.
    compute = torch.compiler.disable(_batch) if "torch._dynamo" in sys.modules else _batch
    return compute(LABEL_TARGETS[name], onehot, valid, spacing)


def _batch(target: LabelTarget, onehot: Tensor, valid: Tensor | None, spacing: Sequence[float] | None) -> Tensor:
    masks = [None] * len(onehot) if valid is None else list(valid[:, 0].cpu().numpy())
    maps = [target(sample, mask, spacing) for sample, mask in zip(onehot.cpu().numpy(), masks, strict=True)]
    return torch.from_numpy(np.stack(maps)).to(onehot.device)
