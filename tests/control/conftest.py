"""What the tests of controls share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nnunet_topo.recipe import Recipe, recipe_from_mapping


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    def build(epochs: int = 100, phases: Any = None, **settings: Any) -> Recipe:
        phases = phases or [{"from": 0, "weights": {"dice": 1.0}}]
        return recipe_from_mapping({"name": "mine", "epochs": epochs, "phases": phases, **settings}, "mine.yaml")

    return build


@pytest.fixture
def feed() -> Callable[..., list[Any]]:
    """Events of a control that is shown a series of the reference loss, with their epochs; it may start later."""

    def run(control: Any, values: Any, *, first: int = 0, before: Any = (), name: str = "reference_loss") -> list[Any]:
        found = []
        for epoch, value in enumerate(values, first):
            record = {"monitors": {name: value}, "weights": {"dice": 1.0, "focal": 0.5, "ce": 0.0}}
            for other in before:
                other.end_epoch(epoch, record)
            events = [*control.start_epoch(epoch), *control.end_epoch(epoch, record)]
            found += [(epoch, event) for event in events]
        return found

    return run
