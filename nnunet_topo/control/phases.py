"""Loss weights by phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_topo.control.event import Event
from nnunet_topo.recipe import Recipe
from nnunet_topo.schedule.phases import phase_begins_at, phase_index_at, weights_at


class PhaseControl:
    """Weights of the loss terms in every epoch, and an event when a phase begins.

    They are a pure function of recipe and epoch, so a resumed run needs no state to continue a ramp, times factors that
    an intervention may set.

    Args:
        recipe: its phases are followed.

    Attributes:
        weights: of every term that the recipe names, in the current epoch.
        factors: term -> factor > 0 on its weight until the next phase begins.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.phase = 0
        self.weights = weights_at(recipe, 0)
        self.factors: dict[str, float] = {}

    def scale(self, factors: Mapping[str, float]) -> None:
        """Multiply the weights from the next epoch on, until the next phase begins.

        Args:
            factors: term -> factor > 0, on top of those that are set already.
        """
        for term, factor in factors.items():
            self.factors[term] = self.factors.get(term, 1.0) * factor

    def start_epoch(self, epoch: int) -> list[Event]:
        """Set `phase` and `weights` for the epoch; an event when the epoch is the first of a later phase."""
        self.phase = phase_index_at(self.recipe, epoch)
        begins = phase_begins_at(self.recipe, epoch)
        if begins:
            self.factors = {}
        self.weights = weights_at(self.recipe, epoch)
        self.weights |= {term: self.weights[term] * factor for term, factor in self.factors.items()}
        if not begins:
            return []
        ramp = self.recipe.phases[self.phase].ramp_epochs
        return [
            Event(
                what="phase",
                why=f"phase {self.phase} begins" + (f", reached over {ramp} epochs" if ramp else ""),
                before=_positive(self.recipe.phases[self.phase - 1].weights),
                after=_positive(self.recipe.phases[self.phase].weights),
            )
        ]

    def end_epoch(self, epoch: int, record: Mapping[str, Any]) -> list[Event]:
        """Phases follow the calendar alone: nothing to do."""
        return []

    def labels(self) -> list[tuple[int, str]]:
        """First epoch of each phase and its weights in words, for the figure."""
        starts = self.recipe.phase_starts()
        return [
            (start, " + ".join(f"{weight:g} {name}" for name, weight in _positive(phase.weights).items()))
            for start, phase in zip(starts, self.recipe.phases, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The factors; everything else follows from recipe and epoch."""
        return {"factors": dict(self.factors)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the factors."""
        self.factors = {term: float(factor) for term, factor in state.get("factors", {}).items()}


def _positive(weights: Mapping[str, float]) -> dict[str, float]:
    return {name: weight for name, weight in weights.items() if weight > 0}
