"""The term scnp: cross-entropy and Dice of the worst neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nnunet_topo.functional.cross_entropy import mean_cross_entropy
from nnunet_topo.functional.dice import soft_dice_loss
from nnunet_topo.losses import checks
from nnunet_topo.losses.term import Term
from nnunet_topo.losses.view import View


class WorstNeighbour(Term):
    """`scnp`: cross-entropy plus Dice, each voxel judged by its worst neighbour of the same class. Range [0, inf).

    The same as `ce` and `dice` with the parameter `scnp`, which every other term takes too.

    Args:
        radius: voxels >= 1 up to which a voxel is a neighbour.
        smooth: > 0, of the Dice.
        **common: see `Term`.

    Source:
        See `worst_neighbour`.
    """

    at_all_scales = True

    def __init__(self, *, radius: int = 1, smooth: float = 1e-5, **common: Any) -> None:
        super().__init__(scnp=checks.integer("radius", radius, low=1), **common)
        self.smooth = checks.number("smooth", smooth, low=0.0, above=True)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `mean_cross_entropy` and `soft_dice_loss`."""
        cross_entropy = mean_cross_entropy(view.cross_entropy, view.map_count, batch_dice=self.batch_dice)
        dice = soft_dice_loss(view.probabilities, view.onehot, smooth=self.smooth, batch_dice=self.batch_dice)
        return cross_entropy + dice
