"""Targets that depend on labels alone: computed in data loading workers, or on the spot when none are handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_topo.errors import ConfigError, nearest
from nnunet_topo.functional.distance import signed_distance

LABEL_TARGETS: dict[str, Callable[..., NDArray[np.float16]]] = {"signed_distance": signed_distance}
"""name -> f(onehot (K, X, Y[, Z]) bool, valid (X, Y[, Z]) bool or None, spacing or None) -> (K, X, Y[, Z]) float16."""


def label_target(name: str, onehot: Tensor, valid: Tensor | None, spacing: Sequence[float] | None) -> Tensor:
    """The label-derived target `name` of a batch.

    Args:
        name: a key of `LABEL_TARGETS`.
        onehot: (B, K, X, Y[, Z]) bool.
        valid: (B, 1, X, Y[, Z]) bool or None.
        spacing: voxel edges in the order of the spatial axes, or None for cubic voxels.

    Returns:
        (B, K, X, Y[, Z]) float16 on the device of `onehot`. On a GPU the labels travel to the CPU and back.

    Raises:
        ConfigError: unknown name.
        ShapeError: `spacing` has not one value for each axis.
    """
    if name not in LABEL_TARGETS:
        raise ConfigError(
            f"target: expected one of {sorted(LABEL_TARGETS)}, got {name!r}.{nearest(name, LABEL_TARGETS)}"
        )
    masks = [None] * len(onehot) if valid is None else list(valid[:, 0].cpu().numpy())
    maps = [
        LABEL_TARGETS[name](sample, mask, spacing) for sample, mask in zip(onehot.cpu().numpy(), masks, strict=True)
    ]
    return torch.from_numpy(np.stack(maps)).to(onehot.device)
