"""Learning rate: the schedule's value times a multiplier that lasts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_topo.control.event import Event
from nnunet_topo.recipe import Recipe
from nnunet_topo.schedule.learning_rate import learning_rate_at


class LearningRateControl:
    """Learning rate of every epoch.

    nnU-Net sets the learning rate anew each epoch, so a change that shall last has to be part of what it sets: it goes
    into `multiplier`, which the checkpoint keeps.

    Args:
        recipe: its optimizer and lr_schedule are followed.

    Attributes:
        multiplier: factor > 0 on the schedule's value, 1 unless something changed it.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.multiplier = 1.0

    def learning_rate(self, epoch: int) -> float:
        """Learning rate > 0 for the epoch."""
        scheduled = learning_rate_at(self.recipe, epoch)
        # x * 1.0 is x to the last bit, so a run that nothing interfered with keeps nnU-Net's own values.
        return scheduled * self.multiplier

    def start_epoch(self, epoch: int) -> list[Event]:
        """The calendar alone changes nothing here."""
        return []

    def end_epoch(self, epoch: int, record: Mapping[str, Any]) -> list[Event]:
        """The calendar alone changes nothing here."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """The multiplier."""
        return {"multiplier": self.multiplier}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the multiplier."""
        self.multiplier = float(state["multiplier"])
