"""Learning rate: the schedule's value times a multiplier that lasts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nnunet_topo.control.event import Event
from nnunet_topo.control.monitor import cost, value_of
from nnunet_topo.recipe import Plateau, Recipe
from nnunet_topo.schedule.averaging import averaging_start
from nnunet_topo.schedule.learning_rate import learning_rate_at
from nnunet_topo.schedule.phases import phase_begins_at

_ROUNDING = 1e-9


class LearningRateControl:
    """Learning rate of every epoch.

    nnU-Net sets the learning rate anew each epoch, so a change that shall last has to be part of what it sets: it goes
    into `multiplier`, which the checkpoint keeps. The `plateau` schedule counts here too, as torch's
    ReduceLROnPlateau does: a reduction when more than `patience` epochs in a row did not improve by `threshold`
    (relative); not during the warm-up, and not while averaging has a learning rate of its own.

    Args:
        recipe: its optimizer, lr_schedule, averaging and plateau.max_lr_scale are followed.

    Attributes:
        multiplier: factor on the schedule's value within [1/cap, cap], 1 unless something changed it.
        decay_epochs: epochs until it is back at 1, None while it stays.
        reductions: how often the plateau schedule has reduced it.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.cap = (recipe.plateau or Plateau()).max_lr_scale
        self.multiplier = 1.0
        self.decay_epochs: int | None = None
        self.reductions = 0
        self.best = math.inf
        self.bad_epochs = 0

    def learning_rate(self, epoch: int) -> float:
        """Learning rate >= 0 for the epoch that is about to start, or runs."""
        scheduled = learning_rate_at(self.recipe, epoch, reductions=self.reductions)
        # x * 1.0 is x to the last bit, so a run that nothing interfered with keeps nnU-Net's own values.
        return scheduled * self.multiplier

    def scaled(self, factor: float) -> float:
        """The multiplier that `scale(factor, ...)` would leave."""
        product = min(max(self.multiplier * factor, 1 / self.cap), self.cap)
        return 1.0 if abs(product - 1) < _ROUNDING else product

    def scale(self, factor: float, decay_epochs: int | None) -> None:
        """Multiply the learning rate from the next epoch on, within the cap.

        Args:
            factor: > 0.
            decay_epochs: > 0, epochs over which the whole multiplier goes back to 1, geometrically; the first still
                has all of it. None: it stays.
        """
        self.multiplier = self.scaled(factor)
        self.decay_epochs = None if self.multiplier == 1.0 else decay_epochs

    def start_epoch(self, epoch: int) -> list[Event]:
        """The calendar alone changes nothing here."""
        return []

    def end_epoch(self, epoch: int, record: Mapping[str, Any]) -> list[Event]:
        """Let the multiplier decay by one epoch, and let the plateau schedule look at its monitor."""
        if self.decay_epochs is not None:
            left = self.decay_epochs - 1
            self.multiplier = self.multiplier ** (left / self.decay_epochs)
            self.decay_epochs = left or None
        return self._reduce(epoch, record)

    def _reduce(self, epoch: int, record: Mapping[str, Any]) -> list[Event]:
        schedule, name, start = self.recipe.lr_schedule, self.recipe.monitor.lr_schedule, averaging_start(self.recipe)
        if schedule.patience is None or schedule.threshold is None or epoch < schedule.warmup_epochs:
            return []
        if start is not None and self.recipe.averaging.lr is not None and epoch >= start:
            return []
        if phase_begins_at(self.recipe, epoch):
            self.best, self.bad_epochs = math.inf, 0
        latest = cost(record, name)
        if latest is None:
            return []
        if self.best == math.inf or latest < self.best - schedule.threshold * abs(self.best):
            self.best, self.bad_epochs = latest, 0
            return []
        self.bad_epochs += 1
        before = learning_rate_at(self.recipe, epoch, reductions=self.reductions)
        after = learning_rate_at(self.recipe, epoch, reductions=self.reductions + 1)
        if self.bad_epochs <= schedule.patience or after == before:
            return []
        why = f"{name} was not better than {value_of(name, self.best):.4g} for {self.bad_epochs} epochs"
        self.reductions, self.bad_epochs = self.reductions + 1, 0
        return [Event("lr_reduced", why, before, after)]

    def state_dict(self) -> dict[str, Any]:
        """Multiplier, its decay, and the counts of the plateau schedule."""
        return {
            "multiplier": self.multiplier,
            "decay_epochs": self.decay_epochs,
            "reductions": self.reductions,
            "best": None if self.best == math.inf else self.best,
            "bad_epochs": self.bad_epochs,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave; early checkpoints hold the multiplier only."""
        self.multiplier, self.decay_epochs = float(state["multiplier"]), state.get("decay_epochs")
        self.reductions, self.bad_epochs = int(state.get("reductions", 0)), int(state.get("bad_epochs", 0))
        best = state.get("best")
        self.best = math.inf if best is None else float(best)
