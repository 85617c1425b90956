"""Return to the best weights after degradation, finitely often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_topo.control.action import RestoreBest
from nnunet_topo.control.event import Event
from nnunet_topo.control.monitor import BestControl, cost, value_of
from nnunet_topo.recipe import Recipe
from nnunet_topo.schedule.phases import phase_begins_at

# A fraction of a best value near 0 would be no measure of anything.
_SMALLEST_SCALE = 0.1


class RollbackControl:
    """Asks for the kept weights when the monitor has become worse than its best.

    With d = (value - best) / max(|best|, 0.1), counted so that positive is worse: catastrophic when d exceeds
    `catastrophic` in one epoch, sustained when it exceeds `tolerance` in `degradation_epochs` epochs in a row. An
    epoch without a value counts for nothing.

    It can't loop: at most `max_rollbacks` in a run, and no best serves twice, so between two rollbacks the network has
    been better than ever. A phase that begins resets the count of bad epochs, and the best stays: the monitor does not
    depend on the phase's weights.

    Args:
        recipe: with `rollback`.
        kept: notices the best of the same monitor, and has seen an epoch before this control does.

    Attributes:
        rolled_back: whether the epoch that ended last was answered with a rollback.
        rollbacks: how many there were.
        bad_epochs: how many in a row were worse than the best by more than the tolerance.
    """

    def __init__(self, recipe: Recipe, kept: BestControl) -> None:
        if recipe.rollback is None:
            raise TypeError("rollback: expected a recipe with this section, got one without")
        self.recipe, self.settings, self.kept = recipe, recipe.rollback, kept
        self.rolled_back = False
        self.rollbacks = 0
        self.bad_epochs = 0
        self.used_best: int | None = None
        self.refused = False

    def start_epoch(self, epoch: int) -> list[Event]:
        """Nothing to do."""
        return []

    def end_epoch(self, epoch: int, record: Mapping[str, Any]) -> list[Event]:
        """Compare the epoch with the best; a rollback when it is needed and allowed."""
        self.rolled_back = False
        if phase_begins_at(self.recipe, epoch):
            self.bad_epochs = 0
        self.refused = self.refused and not self.kept.improved
        latest, best_epoch = cost(record, self.kept.monitor), self.kept.epoch
        if latest is None or best_epoch is None:
            return []
        degradation = (latest - self.kept.best) / max(abs(self.kept.best), _SMALLEST_SCALE)
        self.bad_epochs = self.bad_epochs + 1 if degradation > self.settings.tolerance else 0
        reason = self._reason(degradation)
        if not reason:
            return []
        self.bad_epochs = 0
        value, best = value_of(self.kept.monitor, latest), value_of(self.kept.monitor, self.kept.best)
        if self.rollbacks >= self.settings.max_rollbacks or self.used_best == best_epoch:
            return self._refuse(reason, best_epoch, value, best)
        self.rolled_back, self.refused, self.used_best = True, False, best_epoch
        self.rollbacks += 1
        why = f"{self.kept.monitor} {reason}: back to the weights of epoch {best_epoch}"
        return [Event("rollback", why, value, best, RestoreBest(self.settings.reset_momentum, best_epoch))]

    def _reason(self, degradation: float) -> str:
        settings = self.settings
        if settings.catastrophic is not None and degradation > settings.catastrophic:
            return f"is {degradation:.1%} worse than the best"
        if settings.degradation_epochs is not None and self.bad_epochs >= settings.degradation_epochs:
            return f"was more than {settings.tolerance:.1%} worse than the best for {self.bad_epochs} epochs"
        return ""

    def _refuse(self, reason: str, best_epoch: int, value: float, best: float) -> list[Event]:
        """An event for the first of the refusals between two rollbacks, none for the others."""
        if self.refused:
            return []
        self.refused = True
        limit = f"all {self.settings.max_rollbacks} rollbacks are used"
        used = f"the weights of epoch {best_epoch} have been restored before and nothing was better since"
        why = limit if self.rollbacks >= self.settings.max_rollbacks else used
        return [Event("rollback_refused", f"{self.kept.monitor} {reason}, but {why}", value, best)]

    def state_dict(self) -> dict[str, Any]:
        """Counts, and the best epoch that was restored last."""
        return {
            "rollbacks": self.rollbacks,
            "bad_epochs": self.bad_epochs,
            "used_best": self.used_best,
            "refused": self.refused,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.rollbacks, self.bad_epochs = int(state["rollbacks"]), int(state["bad_epochs"])
        self.used_best, self.refused = state["used_best"], bool(state["refused"])
