"""Terms that look at the overlap of structures: dice, tversky."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nnunet_topo.functional.dice import soft_dice_loss
from nnunet_topo.functional.tversky import tversky_loss
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


class Tversky(Term):
    """`tversky`: Dice with a price for each kind of error. Range [0, 1].

    Args:
        alpha: >= 0, price of a false foreground voxel.
        beta: >= 0, price of a missed one; not both 0. alpha = beta = 0.5 is Dice.
        gamma: > 0, exponent of the loss (focal Tversky); below 1 a structure that is nearly right keeps its gradient.
        smooth: > 0, voxels.
        **common: see `Term`.
    """

    at_all_scales = True

    def __init__(
        self, *, alpha: float = 0.3, beta: float = 0.7, gamma: float = 1.0, smooth: float = 1e-5, **common: Any
    ) -> None:
        super().__init__(**common)
        self.alpha = checks.number("alpha", alpha, low=0.0)
        self.beta = checks.number("beta", beta, low=0.0, above=self.alpha == 0)
        self.gamma = checks.number("gamma", gamma, low=0.0, above=True)
        self.smooth = checks.number("smooth", smooth, low=0.0, above=True)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `tversky_loss`."""
        return tversky_loss(
            view.probabilities,
            view.onehot,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
            smooth=self.smooth,
            batch_dice=self.batch_dice,
        )
