"""Terms that look at structures: dice, cldice, connectivity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nnunet_topo.errors import ConfigError
from nnunet_topo.functional.cldice import soft_cldice_loss
from nnunet_topo.functional.connectivity import connectivity_loss
from nnunet_topo.functional.dice import soft_dice_loss
from nnunet_topo.losses import checks
from nnunet_topo.losses.term import Term
from nnunet_topo.losses.view import View


class Dice(Term):
    """`dice`: one minus the mean soft Dice of the structures. Range [0, 1].

    Args:
        smooth: > 0, added to numerator and denominator.
        **common: see `Term`.
    """

    at_all_scales = True

    def __init__(self, *, smooth: float = 1e-5, **common: Any) -> None:
        super().__init__(**common)
        self.smooth = checks.number("smooth", smooth, low=0.0, above=True)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `soft_dice_loss`."""
        return soft_dice_loss(view.probabilities, view.onehot, smooth=self.smooth, batch_dice=self.batch_dice)


class ClDice(Term):
    """`cldice`: one minus the mean soft clDice of the structures; full resolution only. Range [0, 1].

    Args:
        iterations: erosions, >= 1; about half the largest thickness in voxels.
        smooth: > 0, in voxels of skeleton.
        sharpness: >= 1, factor on the logit before the prediction's skeleton is taken, so that a faint background does
            not drown it; 1 is Shit et al.
        **common: see `Term`.
    """

    def __init__(self, *, iterations: int = 10, smooth: float = 1e-5, sharpness: float = 4.0, **common: Any) -> None:
        super().__init__(**common)
        self.iterations = checks.integer("iterations", iterations, low=1)
        self.smooth = checks.number("smooth", smooth, low=0.0, above=True)
        self.sharpness = checks.number("sharpness", sharpness, low=1.0, high=16.0)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `soft_cldice_loss`."""
        return soft_cldice_loss(
            view.probabilities,
            view.onehot,
            iterations=self.iterations,
            smooth=self.smooth,
            sharpness=self.sharpness,
            batch_dice=self.batch_dice,
        )


class Connectivity(Term):
    """`connectivity`: mean squared difference of dilated prediction and dilated labels. Range [0, 1].

    Gaps and bridges of up to kernel_size - 1 voxels are invisible to it; cldice sees them.

    Args:
        kernel_size: edge of the dilating cube in voxels, odd, >= 3.
        **common: see `Term`.
    """

    def __init__(self, *, kernel_size: int = 3, **common: Any) -> None:
        super().__init__(**common)
        self.kernel_size = checks.integer("kernel_size", kernel_size, low=3)
        if kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size: expected an odd number, got {kernel_size}.")

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `connectivity_loss`."""
        return connectivity_loss(
            view.probabilities,
            view.onehot,
            view.count.sum(),
            valid=view.valid,
            kernel_size=self.kernel_size,
            batch_dice=self.batch_dice,
        )
