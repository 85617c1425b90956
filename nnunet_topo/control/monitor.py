"""Readings of the monitors: which direction is better, smoothing, and the best so far."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from nnunet_topo.control.event import Event
from nnunet_topo.recipe import Recipe


def higher_is_better(name: str) -> bool:
    """Whether a larger value of a monitor is better: of Dice it is, of losses and errors it is not."""
    return name.endswith("_dice")


def measured(record: Mapping[str, Any], name: str) -> float | None:
    """Value of a monitor in an epoch's record; None when it is absent or no finite number.

    Args:
        record: the epoch's journal line, with `monitors`.
        name: of the monitor.
    """
    value = record.get("monitors", {}).get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int too large for a float
        return None
    return number if math.isfinite(number) else None


def cost(record: Mapping[str, Any], name: str) -> float | None:
    """The same with the sign that makes lower better, whatever the monitor."""
    value = measured(record, name)
    return -value if value is not None and higher_is_better(name) else value


def value_of(name: str, cost: float) -> float:
    """A monitor's value from its cost."""
    return -cost if higher_is_better(name) else cost


class SmoothedMonitor:
    """Median of a monitor's latest values, and the lowest that the median has been.

    A median, because one outlier of a validation patch moves it by at most one place, and a moving average for long.
    An epoch without a value changes nothing. All values are costs: lower is better.

    Args:
        name: of the monitor.
        epochs: how many of the latest values count, >= 1; of an even number the worse of the middle two.

    Attributes:
        window: the latest values, oldest first.
        best: its lowest since the last reset, None before the first value.
    """

    def __init__(self, name: str, epochs: int) -> None:
        self.name, self.epochs = name, epochs
        self.window: list[float] = []
        self.best: float | None = None

    @property
    def value(self) -> float | None:
        """The median of the window."""
        return self.median_of(self.epochs)

    def median_of(self, latest: int) -> float | None:
        """The median of the latest values of the window, at most so many; None when there is none."""
        values = self.window[-latest:] if latest else []
        return statistics.median_high(values) if values else None

    def observe(self, record: Mapping[str, Any], threshold: float) -> bool | None:
        """Take an epoch's value up.

        Args:
            record: the epoch's journal line.
            threshold: >= 0, by more than which the median must be below the best to count, and to become the best.

        Returns:
            Whether it improved, None when the epoch has no value.
        """
        latest = cost(record, self.name)
        if latest is None:
            return None
        self.window = [*self.window, latest][-self.epochs :]
        value = statistics.median_high(self.window)
        if self.best is not None and not self.best - value > threshold:
            return False
        self.best = value
        return True

    def reset(self) -> None:
        """Forget everything: what comes cannot be compared with what was."""
        self.window, self.best = [], None

    def state_dict(self) -> dict[str, Any]:
        """Window and best."""
        return {"window": list(self.window), "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up window and best."""
        self.window, self.best = [float(value) for value in state["window"]], state["best"]


class BestControl:
    """Notices when a monitor is better than ever; whoever keeps weights or files asks it behind `end_epoch`.

    Monitors do not depend on the loss weights, so the best is that of the run, whatever its phases.

    Args:
        monitor: name of the monitor.

    Attributes:
        improved: whether the epoch that ended last is the best so far.
        epoch: the best epoch, None before the first value.
        best: its cost (lower is better).
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.improved = False
        self.epoch: int | None = None
        self.best = math.inf

    def start_epoch(self, epoch: int) -> list[Event]:
        """Nothing to do."""
        return []

    def end_epoch(self, epoch: int, record: Mapping[str, Any]) -> list[Event]:
        """Set `improved`; without an event, or early epochs would fill the journal."""
        latest = cost(record, self.monitor)
        self.improved = latest is not None and latest < self.best
        if latest is not None and self.improved:
            self.best, self.epoch = latest, epoch
        return []

    def state_dict(self) -> dict[str, Any]:
        """Best epoch and its cost, None both before the first value."""
        return {"epoch": self.epoch, "best": None if self.epoch is None else self.best, "improved": self.improved}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the best."""
        self.epoch, self.improved = state["epoch"], bool(state["improved"])
        self.best = math.inf if state["best"] is None else float(state["best"])


def monitors_in_use(recipe: Recipe) -> tuple[str, ...]:
    """Names of the monitors that drive a decision of this recipe."""
    settings = recipe.monitor
    names = [settings.best]
    names += [settings.plateau] if recipe.plateau else []
    names += [settings.rollback] if recipe.rollback or keeps_weights(recipe) else []
    names += [settings.lr_schedule] if recipe.lr_schedule.name == "plateau" else []
    names += [settings.early_stopping] if recipe.early_stopping else []
    return tuple(dict.fromkeys(names))


def keeps_weights(recipe: Recipe) -> bool:
    """Whether anything may go back to the best weights: a rollback, or an escape that can be undone only so."""
    escapes = recipe.plateau.actions if recipe.plateau else ()
    return recipe.rollback is not None or bool({"noise", "momentum"} & set(escapes))
