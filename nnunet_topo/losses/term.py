"""The base of all loss terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from nnunet_topo.errors import ConfigError, ShapeError, nearest
from nnunet_topo.losses import checks
from nnunet_topo.losses.label_targets import LABEL_TARGETS, label_target
from nnunet_topo.losses.view import View


def full_precision(device_type: str) -> AbstractContextManager[object]:
    """Switches autocast off: terms work on sums over 128^3 voxels, which float16 cannot hold."""
    # Other devices, mps among them, refuse even to have it switched off.
    return torch.autocast(device_type, enabled=False) if device_type in ("cpu", "cuda", "xpu") else nullcontext()


class Term(nn.Module):
    """One loss term: a module without parameters or buffers that holds options and calls `nnunet_topo.functional`.

    Subclasses implement `evaluate` and may set the class attributes.

    Args:
        ignore_label: value of unlabelled voxels, or None.
        regions: labels are one-hot regions, predicted by sigmoids.
        spacing: voxel edges in the order of the spatial axes, or None for cubic voxels.
        batch_dice: numerators and denominators are pooled over the batch and all ranks before a ratio is taken.
        scnp: voxels >= 1, or True for 1: the term sees every voxel's logits as those of the worst voxel of the same
            class within this distance, see `worst_neighbour`. False or 0: it sees them as they are.
    """

    at_all_scales: bool = False
    """Whether deep supervision applies the term at every scale."""
    target_names: tuple[str, ...] = ()
    """Label-derived targets that the term can use."""

    def __init__(
        self,
        *,
        ignore_label: int | None = None,
        regions: bool = False,
        spacing: Sequence[float] | None = None,
        batch_dice: bool = False,
        scnp: bool | int = False,
    ) -> None:
        super().__init__()
        self.ignore_label = None if ignore_label is None else checks.integer("ignore_label", ignore_label, low=-(2**31))
        self.regions = regions
        self.spacing = checks.spacing(spacing)
        self.batch_dice = batch_dice
        self.scnp = int(scnp) if isinstance(scnp, bool) else checks.integer("scnp", scnp, low=0)

    def view(self, logits: Tensor, labels: Tensor) -> View:
        """What this term and others with the same ignore label, regions and scnp derive from one pair."""
        if self.spacing is not None and len(self.spacing) != logits.ndim - 2:
            raise ShapeError(
                f"spacing: expected {logits.ndim - 2} values, one for each spatial axis of the logits, got "
                f"{self.spacing}. Make the term with the spacing of its patches."
            )
        return View(logits, labels, ignore_label=self.ignore_label, regions=self.regions, scnp=self.scnp)

    def forward(self, logits: Tensor, labels: Tensor, targets: Mapping[str, Tensor] | None = None) -> Tensor:
        """Value of the term.

        Args:
            logits: (B, C, X, Y[, Z]) float16, bfloat16, float32 or float64, unnormalised. C >= 2 competing classes,
                background first; or 1 structure (sigmoid); or with `regions` one channel a region.
            labels: (B, 1, X, Y[, Z]), any dtype, values 0..C-1 (0 and 1 for C = 1) or `ignore_label`; with `regions`
                (B, C[+1], X, Y[, Z]) one-hot, the last channel the ignored voxels when an ignore label is given.
            targets: label-derived targets by name, each (B, K, X, Y[, Z]); missing ones are computed here.

        Returns:
            () float32 (float64 for float64 logits).

        Raises:
            ShapeError: shapes do not fit together.
            ConfigError: a target of another name.
            DataError: a label outside the range, or between two (on the CPU).
        """
        handed_in = {} if targets is None else targets
        for name in handed_in:
            if name not in LABEL_TARGETS:
                raise ConfigError(
                    f"targets: expected names of {', '.join(LABEL_TARGETS)}, got {name!r}."
                    f"{nearest(str(name), LABEL_TARGETS)}"
                )
        with full_precision(logits.device.type):
            return self.evaluate(self.view(logits, labels), handed_in)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """Value of the term on a view; autocast is off."""
        raise TypeError(f"{type(self).__name__} has no evaluate(); a term is a subclass that defines it")

    def label_target(self, name: str, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """The label-derived target `name`: the one handed in, or the same computed on the spot."""
        if name not in targets:
            return label_target(name, view.onehot, view.valid, self.spacing)
        target = targets[name]
        if target.shape != view.onehot.shape:
            raise ShapeError(
                f"targets[{name!r}]: expected shape {tuple(view.onehot.shape)}, one channel a structure, got "
                f"{tuple(target.shape)}. Give AppendLabelTargets the number of structures."
            )
        return target
