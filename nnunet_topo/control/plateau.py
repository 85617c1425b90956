"""Escape from a plateau: detect it, try something, look whether that helped, undo what did not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_topo.control.action import AddNoise, ResetMomentum, RestoreBest, ScaleLearningRate, ScaleLossWeights
from nnunet_topo.control.event import Event
from nnunet_topo.control.learning_rate import LearningRateControl
from nnunet_topo.control.monitor import BestControl, SmoothedMonitor, measured, value_of
from nnunet_topo.control.noise import ESCAPE, noise_seed
from nnunet_topo.control.policy import lr_scale
from nnunet_topo.control.rollback import RollbackControl
from nnunet_topo.recipe import Noise, Recipe
from nnunet_topo.schedule.phases import phase_begins_at

_WEIGHT_FACTOR = 0.5


class PlateauControl:
    """Intervenes when the smoothed monitor has not improved by `threshold` for `patience` epochs.

    The k-th intervention takes the k-th of the recipe's `actions`, from the first again behind the last:

    - `learning_rate`: the multiplier becomes what the policy says, within the cap, and decays over `decay_epochs`.
    - `noise`: once, of `noise_std` relative to each tensor's norm.
    - `loss_weights`: the heaviest term keeps its weight until the next phase, all others get half.
    - `momentum`: the optimiser's state is emptied.

    `evaluation_epochs` later the smoothed monitor, of the values since then alone, is compared with what it was; gaps
    put that off until there are enough to smooth. Where it is worse by more than `threshold`, the intervention is
    undone (factors are taken back; after noise and momentum only the kept weights can be), and that kind is not tried
    again. A rollback counts as such a verdict, and takes the whole multiplier back. An action that would change nothing
    (a multiplier at its cap, a single term) is passed over.

    A phase that begins resets the counts, and drops a verdict that is due: its question no longer makes sense.

    Args:
        recipe: with `plateau`.
        learning_rate: read only, for the multiplier as it stands.
        kept: the best weights, None when the recipe keeps none.
        rollback: asked whether it acted in this epoch, so it comes before this control; None without.

    Attributes:
        plateaus: how many were detected.
        interventions: how many were made, at most `max_interventions`.
        failed: kinds that made things worse.
        pending: the intervention whose verdict is due: kind, epoch, value before, number of values since,
            factor or factors; else None.
    """

    def __init__(
        self,
        recipe: Recipe,
        learning_rate: LearningRateControl,
        kept: BestControl | None = None,
        rollback: RollbackControl | None = None,
    ) -> None:
        if recipe.plateau is None:
            raise TypeError("plateau: expected a recipe with this section, got one without")
        self.recipe, self.settings = recipe, recipe.plateau
        self.learning_rate, self.kept, self.rollback = learning_rate, kept, rollback
        self.monitor = SmoothedMonitor(recipe.monitor.plateau, recipe.monitor.smoothing_epochs)
        self.bad_epochs = 0
        self.cooldown = 0
        self.plateaus = 0
        self.interventions = 0
        self.boosts = 0
        self.failed: list[str] = []
        self.pending: dict[str, Any] | None = None
        self.exhausted = False

    def start_epoch(self, epoch: int) -> list[Event]:
        """Nothing to do."""
        return []

    def end_epoch(self, epoch: int, record: Mapping[str, Any]) -> list[Event]:
        """Judge the intervention whose verdict is due, then look for a plateau."""
        if phase_begins_at(self.recipe, epoch):
            self._restart()
        if self.rollback is not None and self.rollback.rolled_back:
            return self._after_rollback(epoch)
        cooling, self.cooldown = self.cooldown > 0, max(0, self.cooldown - 1)
        improved = self.monitor.observe(record, self.settings.threshold)
        if improved is None:
            return []
        self.bad_epochs = 0 if improved else self.bad_epochs + 1
        if self.pending is not None:
            self.pending["values"] += 1
        events = self._verdict(epoch)
        waiting = cooling or self.pending is not None or self.exhausted
        if self.bad_epochs >= self.settings.patience and not waiting:
            events += self._intervene(epoch, record)
        return events

    def _restart(self) -> None:
        self.monitor.reset()
        self.bad_epochs, self.pending = 0, None

    # -------------------------------------------------------------------------------------------------- intervening

    def _intervene(self, epoch: int, record: Mapping[str, Any]) -> list[Event]:
        patience, self.bad_epochs = self.bad_epochs, 0
        self.plateaus += 1
        stalled = f"{self.monitor.name} has not improved by {self.settings.threshold:g} for {patience} epochs"
        names = self.settings.actions
        turn = self.interventions % len(names) if names else 0
        kinds = [kind for kind in (*names[turn:], *names[:turn]) if kind not in self.failed]
        if self.interventions < self.settings.max_interventions:
            for kind in kinds:
                event = self._attempt(kind, f"{stalled}: {kind}", epoch, record)
                if event is not None:
                    self.interventions += 1
                    self.cooldown = self.settings.cooldown
                    return [event]
            if any(kind not in self.failed for kind in names):
                return [Event("plateau_noticed", f"{stalled}, and nothing can be changed at the moment")]
            why = f"{stalled}, and nothing is left to try"
        else:
            why = f"{stalled}, and all {self.settings.max_interventions} interventions are used"
        self.exhausted = True
        return [Event("plateau_exhausted", why)]

    def _attempt(self, kind: str, why: str, epoch: int, record: Mapping[str, Any]) -> Event | None:
        """The event of an intervention, None when it would change nothing."""
        if kind == "learning_rate":
            return self._raise_learning_rate(why, epoch, record)
        if kind == "loss_weights":
            return self._favour_heaviest(why, epoch, record)
        self._await(kind, epoch)
        if kind == "momentum":
            return Event("plateau", why, action=ResetMomentum())
        patterns = (self.recipe.noise or Noise()).parameters
        action = AddNoise(self.settings.noise_std, noise_seed(self.recipe, epoch, ESCAPE), patterns)
        return Event("plateau", why, None, self.settings.noise_std, action)

    def _raise_learning_rate(self, why: str, epoch: int, record: Mapping[str, Any]) -> Event | None:
        norm = measured(record, "gradient_norm")
        scale = lr_scale(self.settings.policy, gradient_norm=norm, plateaus=self.plateaus, interventions=self.boosts)
        before = self.learning_rate.multiplier
        after = before if scale is None else self.learning_rate.scaled(scale / before)
        if after == before:
            return None
        self.boosts += 1
        self._await("learning_rate", epoch, factor=after / before)
        why += f" as {self.settings.policy} says" + ("" if norm is None else f" at gradient norm {norm:.3g}")
        return Event("plateau", why, before, after, ScaleLearningRate(after / before, self.settings.decay_epochs))

    def _favour_heaviest(self, why: str, epoch: int, record: Mapping[str, Any]) -> Event | None:
        weights = {term: weight for term, weight in record.get("weights", {}).items() if weight > 0}
        heaviest = max(weights, key=lambda term: weights[term], default=None)
        factors = {term: _WEIGHT_FACTOR for term in weights if term != heaviest}
        # a halved weight must stay a weight: 0 would switch the term off for good
        if not factors or any(weights[term] * factor == 0 for term, factor in factors.items()):
            return None
        self._await("loss_weights", epoch, factors=factors)
        after = {term: weight * factors.get(term, 1.0) for term, weight in weights.items()}
        return Event("plateau", why, weights, after, ScaleLossWeights(factors))

    def _await(self, kind: str, epoch: int, **how: Any) -> None:
        self.pending = {"kind": kind, "epoch": epoch, "value": self.monitor.value, "values": 0, **how}

    # ------------------------------------------------------------------------------------------------------ verdict

    def _verdict(self, epoch: int) -> list[Event]:
        pending, wanted = self.pending, self.settings.evaluation_epochs
        if pending is None or epoch - pending["epoch"] < wanted or pending["values"] < min(wanted, self.monitor.epochs):
            return []
        value = self.monitor.median_of(pending["values"])
        if value is None:
            return []
        self.pending, kind = None, pending["kind"]
        before, after = (value_of(self.monitor.name, number) for number in (pending["value"], value))
        spell = f"{self.monitor.name} {epoch - pending['epoch']} epochs after {kind}"
        if value - pending["value"] > self.settings.threshold:
            self.failed.append(kind)
            self.bad_epochs = 0
            why = f"{spell} is worse ({before:.4g} -> {after:.4g}): not tried again"
            return [self._undo(epoch, pending, why)]
        helped = pending["value"] - value > self.settings.threshold
        return [Event("plateau_kept", f"{spell} is {'better' if helped else 'about as before'}", before, after)]

    def _undo(self, epoch: int, pending: Mapping[str, Any], why: str) -> Event:
        kind, what = pending["kind"], "plateau_undone"
        if kind == "learning_rate":
            factor, left = self._factor_left(epoch, pending)
            before = self.learning_rate.multiplier
            return Event(what, why, before, self.learning_rate.scaled(1 / factor), ScaleLearningRate(1 / factor, left))
        if kind == "loss_weights":
            factors = {term: 1 / factor for term, factor in pending["factors"].items()}
            return Event(what, why, dict(pending["factors"]), dict.fromkeys(factors, 1.0), ScaleLossWeights(factors))
        if self.kept is None or self.kept.epoch is None:
            return Event(what, f"{why}; no weights were kept that it could go back to")
        action = RestoreBest(reset_momentum=True, epoch=self.kept.epoch)
        return Event(what, f"{why}; back to the weights of epoch {self.kept.epoch}", action=action)

    def _factor_left(self, epoch: int, pending: Mapping[str, Any]) -> tuple[float, int | None]:
        """What decay has left of a pending factor, and the epochs until it is gone."""
        decay, factor = self.settings.decay_epochs, float(pending["factor"])
        if decay is None:
            return factor, None
        left = max(0, decay - (epoch - pending["epoch"]))
        return factor ** (left / decay), left or None

    def _after_rollback(self, epoch: int) -> list[Event]:
        """The weights are those of another epoch: what is pending has failed, and no boost stays."""
        pending, events = self.pending, []
        self._restart()
        if pending is not None:
            self.failed.append(pending["kind"])
        if pending is not None and pending["kind"] == "loss_weights":
            events.append(self._undo(epoch, pending, "loss_weights ended in a rollback: not tried again"))
        before = self.learning_rate.multiplier
        if before != 1.0:
            boosted = pending is not None and pending["kind"] == "learning_rate"
            why = "learning_rate ended in a rollback: not tried again" if boosted else "a rollback takes the boost back"
            events.append(Event("plateau_undone", why, before, 1.0, ScaleLearningRate(1 / before, None)))
        return events

    # -------------------------------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next decision depends on."""
        return {
            "monitor": self.monitor.state_dict(),
            "bad_epochs": self.bad_epochs,
            "cooldown": self.cooldown,
            "plateaus": self.plateaus,
            "interventions": self.interventions,
            "boosts": self.boosts,
            "failed": list(self.failed),
            "pending": None if self.pending is None else dict(self.pending),
            "exhausted": self.exhausted,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.monitor.load_state_dict(state["monitor"])
        self.bad_epochs, self.cooldown = int(state["bad_epochs"]), int(state["cooldown"])
        self.plateaus, self.interventions = int(state["plateaus"]), int(state["interventions"])
        self.boosts, self.failed = int(state["boosts"]), list(state["failed"])
        self.pending = None if state["pending"] is None else dict(state["pending"])
        if self.pending is not None:  # early checkpoints do not count the values
            self.pending.setdefault("values", self.monitor.epochs)
        self.exhausted = bool(state["exhausted"])
