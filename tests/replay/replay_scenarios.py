"""The series that are replayed: the diary's own, synthetic ones, and runs that answer to what is done to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from replay_harness import FakeRun, table

from nnunet_topo.control.action import RestoreBest
from nnunet_topo.recipe import Recipe, load_recipe, recipe_from_mapping

LOSS = "reference_loss"
ONE_PHASE = [{"from": 0, "weights": {"dice": 1.0, "focal": 0.5}}]


@dataclass(frozen=True)
class Scenario:
    """A recipe, the monitors of each epoch, and what is to be seen."""

    about: str
    recipe: Recipe
    monitors: Callable[[FakeRun], Mapping[str, Any]]
    epochs: int
    columns: tuple[str, ...] = (LOSS,)

    def rows(self) -> list[dict[str, Any]]:
        return FakeRun(self.recipe).run(self.monitors, self.epochs)


def recipe(epochs: int, phases: Any = None, **settings: Any) -> Recipe:
    lr = {"optimizer": {"lr": 0.01}, "lr_schedule": {"name": "constant"}, "seed": 1}
    mapping = {"name": "replayed", "epochs": epochs, "phases": phases or ONE_PHASE, **lr, **settings}
    return recipe_from_mapping(mapping, "a replay")


def losses(values: Any) -> Callable[[FakeRun], Mapping[str, Any]]:
    """A series that does not answer to anything."""
    return lambda run: {LOSS: values[run.epoch], "gradient_norm": 0.3, "topology_error": 0.5}


def diary_scenarios() -> dict[str, Scenario]:
    found = {}
    for name, entry in yaml.safe_load(
        Path(__file__).with_name("diary_series.yaml").read_text(encoding="utf-8")
    ).items():
        known = {**entry["reported"], **entry.get("assumed", {})}
        behind = entry["epochs"] - max(known) - 1
        values = [known.get(epoch) for epoch in range(max(known) + 1)] + (entry["then"] * behind)[:behind]
        about = f"The diary's series, {entry['about']}. Recipe `{entry['recipe']}`, the series as `{LOSS}`."
        found[f"diary_{name}"] = Scenario(about, load_recipe(entry["recipe"]), losses(values), entry["epochs"])
    return found


def synthetic_scenarios() -> dict[str, Scenario]:
    epochs = np.arange(60)
    noise = np.random.default_rng(20260128).normal(size=60)
    decay = np.round(0.3 + 0.5 * np.exp(-epochs / 4), 4)
    everything = {"plateau": {"patience": 5, "cooldown": 0}, "rollback": {}, "early_stopping": {"patience": 25}}
    every_action = {"actions": ["learning_rate", "noise", "loss_weights", "momentum"], "max_interventions": 6}
    phases = [{"from": 0, "weights": {"dice": 1.0}}, {"from": 20, "weights": {"dice": 0.5, "focal": 0.5}}]
    jump = np.where(epochs < 20, decay, np.round(0.55 + 0.2 * np.exp(-(epochs - 20) / 5), 4))
    diverging = [*decay[:20].tolist(), 0.36, 0.47, 0.8, 2.5, 40.0, math.inf] + [math.nan] * 10
    recovering = [*decay[:20].tolist(), 0.315, 0.32, 0.302, 0.32, 0.321, 0.29, *np.linspace(0.29, 0.25, 14).round(4)]
    spikes = np.round(np.where(epochs % 9 == 8, 0.33, 0.8 - 0.008 * epochs), 4)
    return {
        "plateau": Scenario(
            "A loss that settles: three boosts of the learning rate, none of which changes anything, then the end.",
            recipe(60, **everything),
            losses(decay.tolist()),
            60,
        ),
        "plateau_all_actions": Scenario(
            "The same with every action, in the order learning_rate, noise, loss_weights, momentum, and again.",
            recipe(60, plateau={**everything["plateau"], **every_action}),
            losses(decay.tolist()),
            60,
        ),
        "noise": Scenario(
            "A slow improvement under noise of 1 %: not degradation, and no plateau as long as it goes on.",
            recipe(60, **everything, lr_schedule={"name": "plateau", "patience": 8}),
            losses(np.round(0.8 - 0.006 * epochs + 0.005 * noise, 4).tolist()),
            60,
        ),
        "divergence": Scenario(
            "Divergence to infinity and beyond: one rollback. The series does not answer to it, and no best serves "
            "twice, so the second is refused; then the monitor is silent, which is said and decides nothing.",
            recipe(60, **everything),
            losses(diverging),
            len(diverging),
        ),
        "recovery": Scenario(
            "Degradation that recovers before it is sustained: no rollback. The standstill before that is a plateau.",
            recipe(60, **everything),
            losses(recovering),
            len(recovering),
        ),
        "phase_jump": Scenario(
            "The monitor itself becomes much worse with a new phase and stays there. One rollback, no second: the "
            "diary's code went back every third epoch for good.",
            recipe(60, phases, **everything),
            losses(jump.tolist()),
            60,
        ),
        "phase_jump_of_the_weighted_loss": Scenario(
            "Only the weighted validation loss jumps with the phase, as it must when weights change: no effect.",
            recipe(60, phases, rollback={}, early_stopping={"patience": 45}),
            lambda run: {
                **losses([0.8 - 0.01 * e for e in range(60)])(run),
                "validation_loss": (0.4, 0.9)[run.epoch >= 20],
            },
            60,
            (LOSS, "validation_loss"),
        ),
        "gaps": Scenario(
            "Two of three epochs have no value, one in twenty is not a number: neither counts as better or worse.",
            recipe(60, **everything),
            losses([None if e % 3 else math.nan if e % 20 == 6 else float(decay[e]) for e in range(60)]),
            60,
        ),
        "one_outlier": Scenario(
            "A much lower value every ninth epoch: the median of three takes no notice of it for the plateau; the "
            "rollback does, and finds everything else catastrophic. So a noisy monitor must not drive it.",
            recipe(60, **everything),
            losses(spikes.tolist()),
            60,
        ),
        "uniform_prediction": Scenario(
            "Everything is predicted as foreground, in every patch alike, until epoch 8.",
            recipe(20),
            lambda run: {
                "foreground_predicted": 0.999 if run.epoch < 8 else 0.07,
                "foreground_spread": 0.001 if run.epoch < 8 else 0.03,
                "foreground_labelled": 0.06,
                "topology_error": 0.5,
                LOSS: 0.7,
            },
            20,
            ("foreground_predicted", "foreground_spread"),
        ),
        "calendar": Scenario(
            "What only the calendar decides: warm-up, restarts, noise, averaging with its own learning rate.",
            recipe(
                40,
                lr_schedule={"name": "cosine_restarts", "first_cycle_epochs": 8, "cycle_factor": 2, "warmup_epochs": 2},
                noise={"start": 6, "every": 6, "std": 1e-3, "decay": 0.5},
                averaging={"kind": "swa", "start": 0.75, "lr": 1e-3, "anneal_epochs": 4},
            ),
            losses(decay.tolist()),
            40,
        ),
    }


def answering_scenarios() -> dict[str, Scenario]:
    """Runs whose loss answers: to the learning rate, to restored weights."""

    def answering(harm: float, floor: float, boosted_floor: float) -> Callable[[FakeRun], Mapping[str, Any]]:
        state = {"loss": 0.8, "best": math.inf}

        def monitors(run: FakeRun) -> Mapping[str, Any]:
            if (run.epoch - 1, RestoreBest) in [(epoch, type(action)) for epoch, action in run.actions]:
                state["loss"] = state["best"]
            boosted = run.controls["learning_rate"].multiplier > 1.5
            target = boosted_floor if boosted else floor
            step = 0.3 * (min(target, state["loss"]) - state["loss"]) + (harm if boosted else 0.0)
            state["loss"] += step
            state["best"] = min(state["best"], state["loss"])
            return {LOSS: round(state["loss"], 4), "gradient_norm": 0.05, "topology_error": 0.5}

        return monitors

    settings = {"plateau": {"patience": 4, "cooldown": 2, "policy": "head"}, "rollback": {}}
    return {
        "boost_that_helps": Scenario(
            "A boost lets the loss leave its plateau at 0.5: it is kept, and decays.",
            recipe(50, **settings),
            answering(0.0, 0.5, 0.4),
            50,
        ),
        "boost_that_hurts": Scenario(
            "A boost makes the loss rise slowly, below what a rollback tolerates: it is undone, and not tried again.",
            recipe(50, plateau=settings["plateau"], rollback={"tolerance": 0.1}),
            answering(0.004, 0.5, 0.5),
            50,
        ),
        "boost_that_ends_in_a_rollback": Scenario(
            "A boost lets the loss rise fast: rollback, the boost is taken back, and not tried again.",
            recipe(50, **settings),
            answering(0.05, 0.5, 0.5),
            50,
        ),
    }


def scenarios() -> dict[str, Scenario]:
    return {**diary_scenarios(), **synthetic_scenarios(), **answering_scenarios()}


def tables() -> dict[str, str]:
    """Text of every table, by the name of its file."""
    return {
        name: table(name.replace("_", " "), scenario.about, scenario.rows(), scenario.columns)
        for name, scenario in scenarios().items()
    }
