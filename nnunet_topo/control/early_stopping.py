"""The end of a run that no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nnunet_topo.control.action import StopTraining
from nnunet_topo.control.event import Event
from nnunet_topo.control.monitor import cost, value_of
from nnunet_topo.recipe import Recipe
from nnunet_topo.schedule.phases import phase_begins_at


class EarlyStoppingControl:
    """Asks once for the end after `patience` epochs that were not better than the best.

    Only an improvement or the begin of a phase resets the count: rollbacks and escapes do not, or it could never fire.
    Epochs without a value do not count. Once stopped it stays so, in a resumed run too.

    Args:
        recipe: with `early_stopping`.

    Attributes:
        stopped: whether it has fired.
        bad_epochs: epochs with a value since the last improvement.
    """

    def __init__(self, recipe: Recipe) -> None:
        if recipe.early_stopping is None:
            raise TypeError("early_stopping: expected a recipe with this section, got one without")
        self.recipe, self.settings, self.name = recipe, recipe.early_stopping, recipe.monitor.early_stopping
        self.stopped = False
        self.bad_epochs = 0
        self.best = math.inf

    def start_epoch(self, epoch: int) -> list[Event]:
        """Nothing to do."""
        return []

    def end_epoch(self, epoch: int, record: Mapping[str, Any]) -> list[Event]:
        """Count; ask for the end when the patience is over."""
        if self.stopped:
            return []
        if phase_begins_at(self.recipe, epoch):
            self.bad_epochs = 0
        latest = cost(record, self.name)
        if latest is None:
            return []
        if latest < self.best:
            self.best, self.bad_epochs = latest, 0
            return []
        self.bad_epochs += 1
        if self.bad_epochs < self.settings.patience:
            return []
        self.stopped = True
        best = value_of(self.name, self.best)
        why = f"{self.name} was not better than {best:.4g} for {self.bad_epochs} epochs"
        return [Event("early_stopping", why, best, value_of(self.name, latest), StopTraining())]

    def state_dict(self) -> dict[str, Any]:
        """Best, count, and whether it has fired."""
        best = None if self.best == math.inf else self.best
        return {"stopped": self.stopped, "bad_epochs": self.bad_epochs, "best": best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.stopped, self.bad_epochs = bool(state["stopped"]), int(state["bad_epochs"])
        self.best = math.inf if state["best"] is None else float(state["best"])
