"""Settings of what reacts to training: monitors, plateau, rollback, and remarks on what never acts."""

import pytest

from nnunet_topo.errors import ConfigError
from nnunet_topo.recipe import Monitor, Plateau, Rollback, recipe_differences, recipe_from_mapping, remarks

PHASES = [{"from": 0, "weights": {"dice": 1.0}}]
TWO_PHASES = [*PHASES, {"from": 40, "weights": {"dice": 1.0, "ce": 0.5}}]
MONITORED = ("best", "plateau", "rollback", "lr_schedule", "early_stopping")


def build(**changes):
    return recipe_from_mapping({"name": "mine", "epochs": 100, "phases": PHASES, **changes}, "mine.yaml")


def error_of(**changes):
    with pytest.raises(ConfigError) as caught:
        build(**changes)
    return str(caught.value)


def test_defaults():
    recipe = build(plateau={}, rollback={})
    assert recipe.monitor == Monitor()
    assert {key: getattr(recipe.monitor, key) for key in MONITORED} == {
        "best": "topology_error",
        "plateau": "reference_loss",
        "rollback": "reference_loss",
        "lr_schedule": "reference_loss",
        "early_stopping": "reference_loss",
    }
    assert recipe.monitor.reference_weights is None
    assert recipe.conflict_every is None
    assert recipe.plateau == Plateau(5, 0.002, "conservative", 5.0, 3, 5, ("learning_rate",), 5, 20, 1e-3)
    assert recipe.rollback == Rollback(3, 0.15, 0.02, 3, True)


@pytest.mark.parametrize("key", MONITORED)
def test_monitor_names_are_checked(key):
    message = error_of(monitor={key: "referense_loss"})
    assert message.startswith(f"monitor.{key}: expected reference_loss or topology_error or ema_pseudo_dice")
    assert "'reference_loss'" in message
    assert "mine.yaml" in message


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("validation_loss", "It changes when the loss weights do"),
        ("gradient_norm", "It has no better or worse"),
        ("foreground_predicted", "It has no better or worse"),
        ("foreground_spread", "It has no better or worse"),
    ],
)
def test_what_is_measured_but_cannot_decide_is_refused_with_the_reason(name, reason):
    assert reason in error_of(monitor={"rollback": name})


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"monitor": {"patches": 0}}, "monitor.patches"),
        ({"monitor": {"smoothing_epochs": 0}}, "monitor.smoothing_epochs"),
        ({"monitor": {"reference_weights": {"dise": 1}}}, "monitor.reference_weights.dise: unknown loss term"),
        ({"monitor": {"reference_weights": {"dice": 0}}}, "monitor.reference_weights: expected at least one weight"),
        ({"monitor": {"reference_weights": {}}}, "monitor.reference_weights: expected at least one weight"),
        ({"monitor": {"reference_weights": {"dice": -1}}}, "monitor.reference_weights.dice"),
        ({"monitor": {"platau": "reference_loss"}}, "Did you mean 'plateau'"),
        ({"conflict_every": 0}, "conflict_every"),
        ({"plateau": {"actions": ["lr"]}}, "plateau.actions.0: expected learning_rate or noise"),
        ({"plateau": {"actions": ["noise", "noise"]}}, "plateau.actions"),
        ({"plateau": {"actions": "noise"}}, "plateau.actions"),
        ({"plateau": {"evaluation_epochs": 0}}, "plateau.evaluation_epochs"),
        ({"plateau": {"decay_epochs": 0}}, "plateau.decay_epochs"),
        ({"plateau": {"noise_std": 0}}, "plateau.noise_std"),
        ({"plateau": {"max_lr_scale": 0.5}}, "plateau.max_lr_scale"),
        ({"plateau": {"policy": "diary_0.4"}}, "Did you mean 'diary_0.3'"),
        ({"rollback": {"tolerance": -0.1}}, "rollback.tolerance"),
        ({"rollback": {"max_rollbacks": 0}}, "rollback.max_rollbacks"),
        ({"rollback": {"reset_momentum": 1}}, "rollback.reset_momentum"),
    ],
)
def test_bad_values(changes, part):
    assert part in error_of(**changes)


def test_reference_weights_may_name_a_term_that_is_not_trained():
    recipe = build(monitor={"reference_weights": {"dice": 1, "cldice": 0.5}}, losses={"cldice": {"iterations": 5}})
    assert recipe.monitor.reference_weights == {"dice": 1.0, "cldice": 0.5}
    assert recipe.active_terms() == ("dice",)
    assert remarks(recipe) == []
    with pytest.raises(TypeError):
        recipe.monitor.reference_weights["dice"] = 2.0


def test_overrides_reach_the_sections():
    recipe = build().with_overrides(
        ["monitor.best=pseudo_dice", "plateau.actions=[noise]", "plateau.decay_epochs=null"]
    )
    assert (recipe.monitor.best, recipe.plateau.actions, recipe.plateau.decay_epochs) == (
        "pseudo_dice",
        ("noise",),
        None,
    )
    assert "monitor.best: topology_error -> pseudo_dice" in recipe_differences(build(), recipe)


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"plateau": {"patience": 99}}, []),
        ({"plateau": {"patience": 100}}, ["plateau.patience"]),
        ({"early_stopping": {"patience": 99}}, []),
        ({"early_stopping": {"patience": 100}}, ["early_stopping.patience"]),
        ({"early_stopping": {"patience": 60}, "phases": TWO_PHASES}, []),
        ({"early_stopping": {"patience": 61}, "phases": TWO_PHASES}, ["early_stopping.patience"]),
        ({"lr_schedule": {"name": "plateau", "patience": 98}}, []),
        ({"lr_schedule": {"name": "plateau", "patience": 99}}, ["lr_schedule.patience"]),
        ({"rollback": {"degradation_epochs": 100}}, ["rollback.degradation_epochs"]),
        ({"rollback": {"degradation_epochs": None, "catastrophic": None}}, ["rollback"]),
        ({"plateau": {"actions": []}}, ["plateau.actions"]),
        ({"plateau": {"actions": ["loss_weights"]}}, ["plateau.actions"]),
        ({"plateau": {"actions": ["loss_weights"]}, "phases": TWO_PHASES}, []),
        ({"plateau": {"max_lr_scale": 1}}, ["plateau.max_lr_scale"]),
        ({"plateau": {"max_lr_scale": 1, "actions": ["noise"]}}, []),
        ({"noise": {"start": 99}}, []),
        ({"noise": {"start": 100}}, ["noise.start"]),
        ({"averaging": {"kind": "ema", "start": 100}}, ["averaging.start"]),
        ({"lr_schedule": {"name": "cosine_restarts", "minimum_lr": 0.01}}, ["lr_schedule.minimum_lr"]),
    ],
)
def test_remarks_on_what_never_acts(changes, keys):
    assert [remark.split(":")[0] for remark in remarks(build(**changes))] == keys
