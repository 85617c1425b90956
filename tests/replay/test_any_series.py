"""No series of any kind makes a control raise, loop, exceed its cap or leave an invalid state."""

from __future__ import annotations

import math
import random

import pytest
from replay_harness import FakeRun

from nnunet_topo._recipe_sections import ESCAPES, MONITORS, POLICIES
from nnunet_topo.control.action import AddNoise, RestoreBest, ScaleLearningRate, StopTraining
from nnunet_topo.recipe import recipe_from_mapping

SERIES = 10_000
RECIPES = 500
MEASURED = (*MONITORS, "gradient_norm", "foreground_predicted", "foreground_spread", "foreground_labelled")
ODD = (None, math.nan, math.inf, -math.inf, 0.0, -0.0, 1e308, -1e308, 5e-324, 10**400, True, "0.5", 1, -3)


def random_recipe(draw: random.Random):
    """A valid recipe with any of the mechanisms, at settings from the mildest to the wildest."""
    epochs = draw.randint(1, 40)
    starts = sorted({0, *(draw.randrange(epochs) for _ in range(draw.randrange(3)))})
    terms = ("dice", "focal", "ce")
    weights = [
        {term: draw.choice([0.1, 1, 5e-324, 1e300]) for term in draw.sample(terms, draw.randint(1, 3))} for _ in starts
    ]
    mapping = {
        "name": "random",
        "epochs": epochs,
        "seed": draw.choice([None, draw.randrange(2**32)]),
        "optimizer": {"lr": draw.choice([1e-2, 1e-12, 10.0])},
        "phases": [{"from": start, "weights": weight} for start, weight in zip(starts, weights, strict=True)],
        "monitor": {
            "smoothing_epochs": draw.randint(1, 5),
            **{key: draw.choice(MONITORS) for key in ("best", "plateau", "rollback", "lr_schedule", "early_stopping")},
        },
        "lr_schedule": draw.choice(
            [
                {"name": "poly"},
                {"name": "constant"},
                {"name": "plateau", "patience": draw.randint(1, 4), "factor": draw.choice([0.5, 1e-9, 0.99])},
                {
                    "name": "cosine_restarts",
                    "first_cycle_epochs": draw.randint(1, 9),
                    "cycle_factor": draw.randint(1, 3),
                },
            ]
        ),
    }
    mapping["lr_schedule"]["warmup_epochs"] = draw.randrange(min(epochs, 4))
    start = draw.choice([draw.randrange(60), draw.random()])
    sections = {
        "plateau": {
            "patience": draw.randint(1, 5),
            "threshold": draw.choice([0, 0.002, 1e300]),
            "policy": draw.choice(POLICIES),
            "max_lr_scale": draw.choice([1, 1.01, 5, 1e6]),
            "max_interventions": draw.randint(1, 9),
            "cooldown": draw.randrange(6),
            "actions": draw.sample(ESCAPES, draw.randint(0, 4)),
            "evaluation_epochs": draw.randint(1, 5),
            "decay_epochs": draw.choice([None, 1, 3, 20]),
        },
        "rollback": {
            "degradation_epochs": draw.choice([None, 1, 3]),
            "catastrophic": draw.choice([None, 1e-9, 0.15]),
            "tolerance": draw.choice([0, 0.02]),
            "max_rollbacks": draw.randint(1, 5),
        },
        "noise": {"start": start, "every": draw.randint(1, 5), "decay": draw.choice([1, 0.9, 1e-200])},
        "averaging": draw.choice([{"kind": "ema", "start": start}, {"kind": "swa", "start": start, "lr": 1e-3}]),
        "early_stopping": {"patience": draw.randint(1, 12)},
    }
    mapping |= {key: value for key, value in sections.items() if draw.random() < 0.8}
    return recipe_from_mapping(mapping, "a random recipe")


def random_series(draw: random.Random, epochs: int) -> list[float | None]:
    """Falling, rising, at rest, jumping, noisy, growing without bound, or wild; with odd values or without."""
    kind, level = draw.randrange(7), draw.choice([0.5, -0.5, 0.0, 1e6])
    odd = draw.choice([0.0, 0.1, 0.9])
    values: list[float | None] = []
    for epoch in range(epochs):
        usual = (
            level - 0.01 * epoch,
            level + 0.03 * epoch,
            level,
            level + (epoch > epochs // 2),
            level + draw.gauss(0, 0.1),
            level + 10.0 ** min(epoch * 9, 300),
            draw.uniform(-1, 1) * 10 ** draw.randint(-5, 5),
        )[kind]
        values.append(draw.choice(ODD) if draw.random() < odd else usual)
    return values


def check(run: FakeRun, row: dict) -> None:
    recipe, controls = run.recipe, run.controls
    multiplier, cap = controls["learning_rate"].multiplier, recipe.plateau.max_lr_scale if recipe.plateau else 1.0
    assert 1 / cap <= multiplier <= cap
    highest = max(recipe.optimizer.lr, recipe.averaging.lr or 0.0)
    assert 0 <= row["lr"] <= highest * cap * (1 + 1e-12)
    recipes_own = recipe.phases[row["phase"]].weights
    for term, weight in row["weights"].items():
        assert math.isfinite(weight)
        assert (weight > 0) == (recipes_own.get(term, 0) > 0)


def check_whole(run: FakeRun) -> None:
    kinds = [type(action) for _, action in run.actions]
    recipe, plateau, rollback = run.recipe, run.controls.get("plateau"), run.controls.get("rollback")
    interventions = plateau.interventions if plateau else 0
    assert interventions <= (recipe.plateau.max_interventions if plateau else 0)
    rollbacks = rollback.rollbacks if rollback else 0
    assert rollbacks <= (recipe.rollback.max_rollbacks if rollback else 0)
    assert kinds.count(RestoreBest) <= rollbacks + interventions
    # one up and one down for each intervention, and what remained of a boost taken back by each rollback
    assert kinds.count(ScaleLearningRate) <= 2 * interventions + rollbacks
    assert kinds.count(AddNoise) <= interventions + (len(range(0, run.epoch)) if recipe.noise else 0)
    assert kinds.count(StopTraining) == run.stopped
    assert run.stopped or run.epoch == recipe.epochs


@pytest.mark.slow
def test_no_series_does_harm():
    draw = random.Random(20260128)
    recipes = [random_recipe(draw) for _ in range(RECIPES)]
    seen: set[str] = set()
    for index in range(SERIES):
        recipe = recipes[index % RECIPES]
        series = {name: random_series(draw, recipe.epochs) for name in draw.sample(MEASURED, draw.randint(1, 5))}
        snapshot_at = draw.randrange(recipe.epochs)
        run, resumed, snapshot = FakeRun(recipe), FakeRun(recipe), None
        behind: list[str] = []

        def monitors(current, series=series):
            return {name: values[current.epoch] for name, values in series.items()}

        while run.epoch < recipe.epochs and not run.stopped:
            if run.epoch == snapshot_at:
                snapshot = run.states()
                resumed.epoch, resumed.kept, resumed.kept_average = run.epoch, run.kept, run.kept_average
                resumed.resume(snapshot)
            row = run.run_epoch(monitors)
            check(run, row)
            seen.update(event.what for event in row["events"])
            if snapshot is not None:
                behind.append(str((row["lr"], row["weights"], row["events"])))
        check_whole(run)
        if snapshot is not None:
            again = [resumed.run_epoch(monitors) for _ in behind]
            assert [str((row["lr"], row["weights"], row["events"])) for row in again] == behind
            assert resumed.states() == run.states()
    assert seen >= {
        "averaging",
        "early_stopping",
        "lr_reduced",
        "monitor_missing",
        "noise",
        "phase",
        "plateau",
        "plateau_exhausted",
        "plateau_kept",
        "plateau_undone",
        "rollback",
        "rollback_refused",
    }, "the series are too tame to test anything"
