"""Terms that weigh errors by their distance from the boundary: kervadec, hausdorff."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nnunet_topo.functional.distance_losses import distance_weights, hausdorff_loss, kervadec_loss
from nnunet_topo.losses import checks
from nnunet_topo.losses.term import Term
from nnunet_topo.losses.view import View


class _DistanceTerm(Term):
    target_names = ("signed_distance",)

    def weights(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """Distance to the boundary of each structure as a share of the diagonal of the patch."""
        distance = self.label_target("signed_distance", view, targets)
        return distance_weights(distance, view.valid, self.spacing, view.probabilities.dtype)


class Kervadec(_DistanceTerm):
    """`kervadec`: errors times their distance from the boundary, as a share of the largest such sum. Range [0, 1].

    Small numbers: an error near the boundary weighs little. Never alone, not for thin structures.

    Args:
        **common: see `Term`; `spacing` matters here.

    Source:
        See `kervadec_loss`.
    """

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `kervadec_loss`."""
        weights = self.weights(view, targets)
        return kervadec_loss(view.probabilities, view.onehot, weights, batch_dice=self.batch_dice)


class Hausdorff(_DistanceTerm):
    """`hausdorff`: Dice in which an error counts by its distance from the boundary to the power alpha. Range [0, 1].

    Args:
        alpha: > 0 and <= 4; the larger, the more only the most distant errors count.
        **common: see `Term`; `spacing` matters here.

    Source:
        See `hausdorff_loss`.
    """

    def __init__(self, *, alpha: float = 2.0, **common: Any) -> None:
        super().__init__(**common)
        self.alpha = checks.number("alpha", alpha, low=0.0, high=4.0, above=True)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `hausdorff_loss`."""
        weights = self.weights(view, targets)
        return hausdorff_loss(view.probabilities, view.onehot, weights, alpha=self.alpha, batch_dice=self.batch_dice)
