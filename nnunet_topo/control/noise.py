"""Noise on the weights by the calendar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnunet_topo.control.action import AddNoise
from nnunet_topo.control.event import Event
from nnunet_topo.recipe import Recipe, epoch_of

SCHEDULED, ESCAPE = 0, 1


def noise_seed(recipe: Recipe, epoch: int, occasion: int) -> int:
    """Seed of the noise of an epoch, the same on every rank and in a resumed run.

    Args:
        recipe: its seed counts, 0 where it has none.
        epoch: >= 0.
        occasion: SCHEDULED or ESCAPE, so that both in one epoch draw differently.
    """
    return int(np.random.SeedSequence([recipe.seed or 0, epoch, occasion]).generate_state(1)[0])


class NoiseControl:
    """Asks for noise before every `every`-th epoch from `start` on, with std * decay ** k the k-th time (from 0).

    Args:
        recipe: with `noise`.
    """

    def __init__(self, recipe: Recipe) -> None:
        if recipe.noise is None:
            raise TypeError("noise: expected a recipe with this section, got one without")
        self.recipe, self.settings = recipe, recipe.noise
        self.start = epoch_of(recipe.noise.start, recipe.epochs)
        self.last: int | None = None

    def start_epoch(self, epoch: int) -> list[Event]:
        """The noise of the epoch; only once, also when a run resumes in the middle of it."""
        passed, settings = epoch - self.start, self.settings
        if passed < 0 or passed % settings.every or (self.last is not None and epoch <= self.last):
            return []
        times = passed // settings.every
        std = settings.std * settings.decay**times
        if std == 0.0:  # decayed below the smallest float
            return []
        self.last = epoch
        before = settings.std * settings.decay ** (times - 1) if times else None
        action = AddNoise(std, noise_seed(self.recipe, epoch, SCHEDULED), settings.parameters)
        return [Event("noise", f"relative to each tensor's norm, time {times + 1}", before, std, action)]

    def end_epoch(self, epoch: int, record: Mapping[str, Any]) -> list[Event]:
        """Noise follows the calendar alone: nothing to do."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """The last epoch with noise, None before the first."""
        return {"last": self.last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it up."""
        self.last = state["last"]
