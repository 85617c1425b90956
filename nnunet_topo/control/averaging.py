"""Announces the averaging of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_topo.control.event import Event
from nnunet_topo.recipe import Recipe
from nnunet_topo.schedule.averaging import averages_after_epoch, averages_after_step, averaging_start


class AveragingControl:
    """Says when the average begins, and which weights belong to it.

    Both follow from recipe and epoch, so there is no state here; the average itself and its count are kept, and rolled
    back, with the weights.

    Args:
        recipe: its `averaging` is followed.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def due_after_step(self, epoch: int) -> bool:
        """Whether the weights behind each optimiser step of the epoch belong to the average."""
        return averages_after_step(self.recipe, epoch)

    def due_after_epoch(self, epoch: int) -> bool:
        """Whether the weights at the end of the epoch belong to the average."""
        return averages_after_epoch(self.recipe, epoch)

    def start_epoch(self, epoch: int) -> list[Event]:
        """An event when the epoch is the first one averaged."""
        if epoch != averaging_start(self.recipe):
            return []
        settings = self.recipe.averaging
        if settings.kind == "ema":
            return [Event("averaging", f"ema of the weights after every step, decay {settings.decay:g}", None, "ema")]
        why = "swa of the weights, every " + ("epoch" if settings.every == 1 else f"{settings.every} epochs")
        if settings.lr is not None:
            why += f"; the learning rate goes to {settings.lr:g} over {settings.anneal_epochs} epochs"
        return [Event("averaging", why, None, "swa")]

    def end_epoch(self, epoch: int, record: Mapping[str, Any]) -> list[Event]:
        """Nothing to do."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Empty: everything follows from recipe and epoch."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""
