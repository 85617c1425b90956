"""The term betti_matching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nnunet_topo.functional.betti_matching import betti_matching_loss
from nnunet_topo.losses import checks
from nnunet_topo.losses.term import Term
from nnunet_topo.losses.view import View


class BettiMatching(Term):
    """`betti_matching`: wrong components, loops and cavities in small patches; full resolution only. Range [0, 1].

    Needs the compiled engine, see `betti_engine`; works on the CPU, so a GPU waits for it. Unlike that of the other
    terms its value can change with flips and permutations of the axes.

    Args:
        size: edge of a patch in voxels, >= 2.
        patches: number of patches in each sample, >= 1.
        seed: >= 0, of where they lie.
        power: >= 1, exponent of the persistence of false features.
        budget_ms: > 0, milliseconds after which no further patch is begun; then the value depends on the machine. None:
            all patches.
        **common: see `Term`.

    Source:
        See `betti_matching_loss`.
    """

    def __init__(
        self,
        *,
        size: int = 24,
        patches: int = 1,
        seed: int = 0,
        power: float = 4.0,
        budget_ms: float | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.size = checks.integer("size", size, low=2)
        self.patches = checks.integer("patches", patches, low=1)
        self.seed = checks.integer("seed", seed, low=0)
        self.power = checks.number("power", power, low=1.0, high=16.0)
        self.budget_ms = None if budget_ms is None else checks.number("budget_ms", budget_ms, low=0.0, above=True)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `betti_matching_loss`."""
        return betti_matching_loss(
            view.probabilities,
            view.onehot,
            size=self.size,
            patches=self.patches,
            seed=self.seed,
            power=self.power,
            budget_ms=self.budget_ms,
            batch_dice=self.batch_dice,
        )
