"""Runs the control objects over series of monitor values, without a network, and writes their decisions as tables.

`python tests/replay/replay_harness.py` writes the tables anew; the test compares them with what the controls decide.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_topo.control import Event, build_controls
from nnunet_topo.control.action import (
    AddNoise,
    ResetMomentum,
    RestoreBest,
    ScaleLearningRate,
    ScaleLossWeights,
    StopTraining,
)
from nnunet_topo.recipe import Recipe
from nnunet_topo.schedule.averaging import averages_after_epoch

TABLES = Path(__file__).parent / "tables"


@dataclass
class FakeRun:
    """A run without a network: it executes what acts on controls, and notes the rest.

    Attributes:
        recipe: followed.
        epoch: the next to run.
        stopped: whether the end was asked for.
        kept: epoch whose weights are kept, as the trainer keeps them.
        restored: epochs that were restored, in order.
        averaged: epochs in the average, rolled back with the weights.
        actions: everything that was asked for, by epoch.
    """

    recipe: Recipe
    epoch: int = 0
    stopped: bool = False
    kept: int | None = None
    kept_average: tuple[int, ...] = ()
    averaged: tuple[int, ...] = ()
    restored: list[int] = field(default_factory=list)
    actions: list[tuple[int, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.controls: dict[str, Any] = build_controls(self.recipe)

    def execute(self, event: Event) -> None:
        action = event.action
        if action is None:
            return
        self.actions.append((self.epoch, action))
        match action:
            case ScaleLearningRate():
                self.controls["learning_rate"].scale(action.factor, action.decay_epochs)
            case ScaleLossWeights():
                self.controls["phases"].scale(action.factors)
            case RestoreBest():
                assert action.epoch == self.kept, "restored weights that nobody kept"
                self.restored.append(action.epoch)
                self.averaged = self.kept_average
            case StopTraining():
                assert not self.stopped, "stopped twice"
                self.stopped = True
            case AddNoise():
                assert action.std > 0
            case ResetMomentum():
                pass
            case _:
                raise AssertionError(f"unknown action {action}")

    def run_epoch(self, monitors: Callable[[FakeRun], Mapping[str, Any]]) -> dict[str, Any]:
        """One epoch in the order of the trainer's hooks; a row with what it showed and what was decided."""
        epoch, events = self.epoch, []
        for control in self.controls.values():
            for event in control.start_epoch(epoch):
                events.append(event)
                self.execute(event)
        learning_rate = self.controls["learning_rate"]
        row = {
            "epoch": epoch,
            "phase": self.controls["phases"].phase,
            "lr": learning_rate.learning_rate(epoch),
            "multiplier": learning_rate.multiplier,
            "weights": dict(self.controls["phases"].weights),
        }
        row["monitors"] = dict(monitors(self))
        if averages_after_epoch(self.recipe, epoch):
            self.averaged += (epoch,)
        record = {"epoch": epoch, "weights": row["weights"], "monitors": row["monitors"]}
        for name, control in self.controls.items():
            for event in control.end_epoch(epoch, record):
                events.append(event)
                self.execute(event)
            if name == "kept_weights" and control.improved:
                self.kept, self.kept_average = epoch, self.averaged
        row["events"] = events
        self.epoch += 1
        return row

    def run(self, monitors: Callable[[FakeRun], Mapping[str, Any]], epochs: int) -> list[dict[str, Any]]:
        """Rows until the end of the series or of the run."""
        rows = []
        while self.epoch < min(epochs, self.recipe.epochs) and not self.stopped:
            rows.append(self.run_epoch(monitors))
        return rows

    def states(self) -> str:
        """State of all controls as a checkpoint would hold it: builtins, nothing that is not finite."""
        return json.dumps({name: c.state_dict() for name, c in self.controls.items()}, allow_nan=False)

    def resume(self, states: str) -> None:
        """Fresh controls with that state."""
        self.controls = build_controls(self.recipe)
        for name, state in json.loads(states).items():
            self.controls[name].load_state_dict(state)


def table(title: str, about: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Markdown of a replay: one row for each epoch with a decision, runs of quiet epochs in one."""
    header = ["epoch", "phase", *columns, "learning rate", "x", "decision"]
    lines = [f"# {title}", "", about, "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    quiet: list[dict[str, Any]] = []
    for row in [*rows, None]:
        if row is not None and not row["events"]:
            quiet.append(row)
            continue
        if quiet:
            lines.append(_line(quiet, columns, ""))
            quiet = []
        if row is not None:
            lines.append(_line([row], columns, "<br>".join(map(_shown_event, row["events"]))))
    return "\n".join(lines) + "\n"


def _line(rows: list[dict[str, Any]], columns: tuple[str, ...], decision: str) -> str:
    first, last = rows[0], rows[-1]
    values = [[row["monitors"].get(name) for row in rows] for name in columns]
    cells = [
        str(first["epoch"]) if len(rows) == 1 else f"{first['epoch']} to {last['epoch']}",
        str(last["phase"]),
        *map(_range, values),
        _range([row["lr"] for row in rows]),
        _range([row["multiplier"] for row in rows]),
        decision,
    ]
    return f"| {' | '.join(cells)} |"


def _range(values: list[Any]) -> str:
    texts = list(dict.fromkeys(_number(value) for value in values))
    if len(texts) == 1:
        return texts[0]
    finite = [value for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
    if len(finite) < len(values):
        return ", ".join(texts) if len(texts) < 4 else f"{_number(min(finite))} .. {_number(max(finite))}, gaps"
    return f"{_number(min(finite))} .. {_number(max(finite))}"


def _number(value: Any) -> str:
    return "none" if value is None else f"{value:.4g}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    return _number(value) if isinstance(value, (int, float)) else str(value)


def _shown_event(event: Event) -> str:
    change = (
        "" if event.before is None and event.after is None else f" ({_shown(event.before)} -> {_shown(event.after)})"
    )
    return f"**{event.what}**: {event.why}{change}".replace("None", "none")


if __name__ == "__main__":
    from replay_scenarios import tables

    TABLES.mkdir(exist_ok=True)
    for name, text in tables().items():
        (TABLES / f"{name}.md").write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(tables())} tables in {TABLES}\n")
