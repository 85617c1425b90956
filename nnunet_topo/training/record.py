"""What one epoch leaves in the journal, gathered over steps and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch import distributed as dist

from nnunet_topo.functional.masks import valid_mask

Outputs = Sequence[Mapping[str, Any]]
Value = TypeVar("Value")


def over_ranks(value: Value) -> list[Value]:
    """The value of every rank, the same list on all of them; a list of one outside distributed training."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def loss_record(outputs: Outputs, names: Sequence[str], weights: Mapping[str, float]) -> dict[str, Any]:
    """Mean loss and terms of an epoch over steps and ranks.

    Args:
        outputs: one mapping a step with `loss` () and `terms` (T,).
        names: the T terms.
        weights: weight of each term in this epoch.

    Returns:
        `{"loss": float, "terms": {name: unweighted}, "weighted": {name: weight * unweighted}}`.
    """
    steps = np.array([[float(output["loss"]), *output["terms"]] for output in outputs], dtype=np.float64)
    mean = np.mean(over_ranks(steps.mean(axis=0)), axis=0)
    terms = {name: float(value) for name, value in zip(names, mean[1:], strict=True)}
    return {
        "loss": float(mean[0]),
        "terms": terms,
        "weighted": {name: weights[name] * value for name, value in terms.items()},
    }


def gradient_norm_record(outputs: Outputs) -> float | None:
    """Mean over steps and ranks of the gradient's norm before clipping; None when no step had a finite one.

    Args:
        outputs: one mapping a step with `gradient_norm` ().
    """
    norms = np.concatenate(over_ranks(np.array([output["gradient_norm"] for output in outputs], dtype=np.float64)))
    finite = norms[np.isfinite(norms)]  # a GradScaler that looks for its scale leaves a few infinite ones
    return float(finite.mean()) if len(finite) else None


def foreground_record(outputs: Outputs, *, overlapping: bool) -> dict[str, float | None]:
    """Share of the valid voxels of all validation patches that is foreground, predicted and labelled.

    Args:
        outputs: one mapping a step with nnU-Net's `tp_hard`, `fp_hard`, `fn_hard` (classes or regions,) and
            `valid_voxels` ().
        overlapping: regions may contain each other; then the largest one stands for the foreground.

    Returns:
        `foreground_predicted` and `foreground_labelled` in [0, 1], None when no voxel was valid.
    """
    sums = {
        key: np.sum(over_ranks(np.sum([output[key] for output in outputs], axis=0, dtype=np.float64)), axis=0)
        for key in ("tp_hard", "fp_hard", "fn_hard", "valid_voxels")
    }
    valid = float(sums["valid_voxels"])
    if valid == 0:
        return {"foreground_predicted": None, "foreground_labelled": None}
    combine = np.max if overlapping else np.sum
    return {
        "foreground_predicted": float(combine(sums["tp_hard"] + sums["fp_hard"]) / valid),
        "foreground_labelled": float(combine(sums["tp_hard"] + sums["fn_hard"]) / valid),
    }


def valid_voxels(target: Tensor | Sequence[Tensor], ignore_label: int | None, *, regions: bool) -> int:
    """Number of voxels of a batch of label maps that are not ignored.

    Args:
        target: labels (B, 1, X, Y[, Z]), or (B, R[+1], ...) one-hot for regions with the ignored voxels last; with
            deep supervision a list, full resolution first.
        ignore_label: the dataset's ignore label, None without one.
        regions: whether labels are one-hot regions.
    """
    labels = target if isinstance(target, Tensor) else target[0]
    valid = valid_mask(labels, ignore_label=ignore_label, regions=regions)
    return labels[:, 0].numel() if valid is None else int(valid.sum())


def to_numpy(values: Sequence[Tensor]) -> npt.NDArray[np.float32]:
    """Detached scalars as one array (N,): a single transfer from the device instead of one each."""
    if not values:
        return np.zeros(0, dtype=np.float32)
    return torch.stack([value.detach().float() for value in values]).cpu().numpy()
