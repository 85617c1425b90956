"""Says when a monitor that drives a decision has gone silent, and when predictions have become uniform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_topo.control.event import Event
from nnunet_topo.control.monitor import measured, monitors_in_use
from nnunet_topo.recipe import Recipe

SILENT_EPOCHS = 5
UNIFORM_EPOCHS = 3
# Uniform: nearly all foreground or nearly none, alike in all patches, where the labels are neither.
_UNIFORM_SPREAD = 0.01
_UNIFORM_SHARE = 0.1


class MonitorWatch:
    """Names two failures that the loss does not show; it decides nothing.

    `monitor_missing`: a monitor in use had no finite value for SILENT_EPOCHS epochs, so what it drives rests.
    `uniform_prediction`: for UNIFORM_EPOCHS epochs nearly everything was predicted as foreground, or as background.
    Both once per spell, and `..._over` at its end.

    Args:
        recipe: says which monitors are in use.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.names = monitors_in_use(recipe)
        self.silent = dict.fromkeys(self.names, 0)
        self.uniform = 0

    def start_epoch(self, epoch: int) -> list[Event]:
        """Nothing to do."""
        return []

    def end_epoch(self, epoch: int, record: Mapping[str, Any]) -> list[Event]:
        """Count silent and uniform epochs."""
        events = []
        for name in self.names:
            before = self.silent[name]
            self.silent[name] = before + 1 if measured(record, name) is None else 0
            if self.silent[name] == SILENT_EPOCHS:
                why = f"{name} had no finite value for {SILENT_EPOCHS} epochs: what it drives rests"
                events.append(Event("monitor_missing", why, None, name))
            elif before >= SILENT_EPOCHS and not self.silent[name]:
                events.append(
                    Event("monitor_missing_over", f"{name} has a value again after {before} epochs", None, name)
                )
        before, share = self.uniform, _uniform_share(record)
        self.uniform = 0 if share is None else before + 1
        if share is not None and self.uniform == UNIFORM_EPOCHS:
            kind = "foreground" if share > 0.5 else "background"
            why = f"nearly everything was predicted as {kind} in every patch for {UNIFORM_EPOCHS} epochs"
            events.append(Event("uniform_prediction", why, measured(record, "foreground_labelled"), share))
        elif share is None and before >= UNIFORM_EPOCHS:
            predicted = measured(record, "foreground_predicted")
            events.append(Event("uniform_prediction_over", f"after {before} epochs", None, predicted))
        return events

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"silent": dict(self.silent), "uniform": self.uniform}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the counts."""
        self.silent = {name: int(state["silent"].get(name, 0)) for name in self.names}
        self.uniform = int(state["uniform"])


def _uniform_share(record: Mapping[str, Any]) -> float | None:
    """The predicted share of foreground when it is uniform, else None."""
    predicted, spread = measured(record, "foreground_predicted"), measured(record, "foreground_spread")
    labelled = measured(record, "foreground_labelled")
    if predicted is None or spread is None or labelled is None or spread > _UNIFORM_SPREAD:
        return None
    empty = predicted < _UNIFORM_SHARE * labelled
    full = 1 - predicted < _UNIFORM_SHARE * (1 - labelled)
    return predicted if empty or full else None
