import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_topo.errors import ConfigError
from nnunet_topo.recipe import (
    Averaging,
    Optimizer,
    Phase,
    Recipe,
    epoch_of,
    recipe_from_mapping,
)

MINIMAL = {"name": "mine", "phases": [{"from": 0, "weights": {"dice": 1.0}}]}


def mapping(**changes):
    return {**copy.deepcopy(MINIMAL), **changes}


def build(**changes):
    return recipe_from_mapping(mapping(**changes), "mine.yaml")


def error_of(**changes):
    with pytest.raises(ConfigError) as caught:
        build(**changes)
    return str(caught.value)


def phases(*starts, **first):
    listed = [{"from": start, "weights": {"dice": 1.0}} for start in starts]
    listed[0].update(first)
    return listed


# --- defaults ---------------------------------------------------------------------------------------------------------


def test_defaults_are_nnunets_own_values():
    recipe = build()
    assert (recipe.epochs, recipe.iterations_per_epoch, recipe.validation_iterations) == (1000, 250, 50)
    assert recipe.optimizer == Optimizer("sgd", 1e-2, 3e-5, 0.99)
    assert (recipe.lr_schedule.name, recipe.lr_schedule.warmup_epochs, recipe.gradient_clip) == ("poly", 0, 12.0)
    assert (recipe.sampling.foreground, recipe.sampling.probabilistic, recipe.sampling.mirror_axes) == (
        0.33,
        False,
        None,
    )
    assert (recipe.checkpoint_every, recipe.seed, recipe.trainable, recipe.start_from) == (50, None, "all", None)
    assert recipe.plateau is recipe.rollback is recipe.noise is recipe.early_stopping is None
    assert recipe.averaging == Averaging()
    assert recipe.averaging.start is None
    assert recipe.inference.threshold == 0.5


def test_dataclass_can_be_built_directly():
    recipe = Recipe("mine", phases=(Phase(0, {"dice": 1.0}),))
    assert recipe == build()


@pytest.mark.parametrize(
    "section", ["optimizer", "lr_schedule", "losses", "averaging", "network", "sampling", "inference"]
)
@pytest.mark.parametrize("empty", [None, {}])
def test_empty_section_means_defaults(section, empty):
    assert build(**{section: empty}) == build()


# --- unknown, missing and mistyped keys -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "key", "suggestion"),
    [
        ({"epoch": 5}, "epoch", "epochs"),
        ({"optimizer": {"learning_rat": 1}}, "optimizer.learning_rat", None),
        ({"optimizer": {"momentun": 0.9}}, "optimizer.momentun", "momentum"),
        ({"lr_schedule": {"warmup": 1}}, "lr_schedule.warmup", "warmup_epochs"),
        ({"plateau": {"patiense": 1}}, "plateau.patiense", "patience"),
        ({"network": {"patch": [8, 8, 8]}}, "network.patch", "patch_size"),
        ({"phases": phases(0, rampepochs=1)}, "phases.0.rampepochs", "ramp_epochs"),
    ],
)
def test_unknown_key_names_file_key_and_nearest(changes, key, suggestion):
    message = error_of(**changes)
    assert message.startswith(f"{key}: unknown key. mine.yaml.")
    assert "Valid keys:" in message
    if suggestion:
        assert f"Did you mean '{suggestion}'?" in message


@pytest.mark.parametrize("missing", ["name", "phases"])
def test_missing_key(missing):
    incomplete = mapping()
    del incomplete[missing]
    with pytest.raises(ConfigError, match=rf"^{missing}: expected a value, got None. mine.yaml. Add the key"):
        recipe_from_mapping(incomplete, "mine.yaml")


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_recipe_must_be_a_mapping(value):
    with pytest.raises(ConfigError, match="expected a mapping"):
        recipe_from_mapping(value, "mine.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", True),
        ("epochs", 0),
        ("epochs", 10.0),
        ("epochs", "10"),
        ("epochs", [10]),
        ("iterations_per_epoch", 0),
        ("validation_iterations", -1),
        ("checkpoint_every", 0),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", False),
        ("gradient_clip", 0),
        ("gradient_clip", True),
        ("optimizer.name", "adam"),
        ("optimizer.lr", 0),
        ("optimizer.lr", -1e-3),
        ("optimizer.lr", "fast"),
        ("optimizer.lr", float("nan")),
        ("optimizer.lr", float("inf")),
        ("optimizer.lr", 10**400),
        ("optimizer.lr", True),
        ("optimizer.lr", None),
        ("optimizer.weight_decay", -1),
        ("optimizer.momentum", 1.0),
        ("lr_schedule.name", "cosine"),
        ("lr_schedule.warmup_epochs", -1),
        ("lr_schedule.warmup_epochs", 1000),
        ("plateau.policy", "aggressive"),
        ("plateau.max_lr_scale", 0.5),
        ("plateau.patience", 0),
        ("rollback.catastrophic", 0),
        ("rollback.degradation_epochs", 0),
        ("noise.std", 0),
        ("noise.decay", 1.5),
        ("noise.start", 1.5),
        ("noise.every", 0),
        ("noise.parameters", []),
        ("averaging.kind", "mean"),
        ("early_stopping.patience", 0),
        ("network.batch_size", 0),
        ("network.patch_size", [32]),
        ("network.patch_size", [32, 32, 32, 32]),
        ("network.patch_size", 32),
        ("network.patch_size", [32, 0, 32]),
        ("network.features", 1.5),
        ("sampling.foreground", 1.5),
        ("sampling.probabilistic", "yes"),
        ("sampling.probabilistic", 1),
        ("sampling.mirror_axes", [0, 0]),
        ("sampling.mirror_axes", [3]),
        ("sampling.mirror_axes", [True]),
        ("start_from", 3),
        ("start_from", ""),
        ("trainable", []),
        ("trainable", "some"),
        ("trainable", [3]),
        ("inference.threshold", 0),
        ("inference.threshold", 1),
        ("name", "Mine"),
        ("name", "my__recipe"),
        ("name", "_mine"),
        ("name", "mine_"),
        ("name", "my-recipe"),
        ("name", "mine\n"),
        ("name", 3),
        ("losses", ["dice"]),
        ("losses.dice", 3),
        ("phases", {}),
        ("phases", []),
        ("phases", [3]),
    ],
)
def test_bad_value_names_key_file_and_value(key, value):
    section, _, leaf = key.partition(".")
    changes = {section: {leaf: value}} if leaf else {section: value}
    message = error_of(**changes)
    assert message.startswith(f"{key}")
    assert "expected" in message
    assert "got" in message
    assert "mine.yaml." in message
    items = value if isinstance(value, list) and value else [value]
    assert any(f"got {item!r}" in message for item in [value, *items])


@pytest.mark.parametrize(
    ("key", "value", "stored"),
    [
        ("optimizer.lr", "1e-4", 1e-4),
        ("optimizer.lr", "1E-4", 1e-4),
        ("optimizer.lr", "+2.5e-4", 2.5e-4),
        ("optimizer.lr", 1, 1.0),
        ("optimizer.momentum", 0, 0.0),
        ("gradient_clip", None, None),
        ("gradient_clip", "1e1", 10.0),
        ("network.patch_size", [64, 32, 16], (64, 32, 16)),
        ("network.patch_size", [64, 32], (64, 32)),
        ("sampling.mirror_axes", [], ()),
        ("sampling.mirror_axes", [2, 0], (2, 0)),
        ("trainable", ["decoder.*"], ("decoder.*",)),
        ("rollback.catastrophic", None, None),
        ("noise.start", 0.5, 0.5),
    ],
)
def test_accepted_value(key, value, stored):
    section, _, leaf = key.partition(".")
    recipe = build(**({section: {leaf: value}} if leaf else {section: value}))
    found = getattr(recipe, section)
    found = getattr(found, leaf) if leaf else found
    assert found == stored
    assert type(found) is type(stored)


@pytest.mark.parametrize(
    ("section", "content", "key"),
    [
        ("optimizer", {"name": "adamw", "momentum": 0.9}, "momentum"),
        ("lr_schedule", {"name": "poly", "patience": 5}, "patience"),
        ("lr_schedule", {"name": "plateau", "first_cycle_epochs": 5}, "first_cycle_epochs"),
        ("lr_schedule", {"name": "constant", "minimum_lr": 0}, "minimum_lr"),
        ("averaging", {"kind": "none", "start": 5}, "start"),
        ("averaging", {"kind": "swa", "decay": 0.9}, "decay"),
        ("averaging", {"kind": "ema", "lr": 0.9}, "lr"),
    ],
)
def test_setting_of_another_kind_is_refused(section, content, key):
    assert error_of(**{section: content}).startswith(f"{section}.{key}: expected only with")
    build(**{section: {**content, key: None}})


# --- phases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "epochs", "key", "part"),
    [
        (phases(1), 10, "phases.0.from", "expected 0 for the first phase, got 1"),
        (phases(0.5), 10, "phases.0.from", "0.5 (epoch 5)"),
        (phases(0, 5, 3), 10, "phases.2.from", "after that of the phase before (epoch 5), got 3"),
        (phases(0, 5, 5), 10, "phases.2.from", "got 5"),
        (phases(0, 5, 0.5), 10, "phases.2.from", "(epoch 5)"),
        (phases(0, 0.01), 10, "phases.1.from", "(epoch 0)"),
        (phases(0, 10), 10, "phases.1.from", "before the end of the run (epochs: 10), got 10"),
        (phases(0, 0.96), 10, "phases.1.from", "(epoch 10)"),
        (phases(0, 5, ramp_epochs=2), 10, "phases.0.ramp_epochs", "expected 0 for the first phase, got 2"),
        ([*phases(0), {"from": 4, "weights": {"dice": 1}, "ramp_epochs": 7}], 10,
         "phases.1.ramp_epochs", "at most the 6"),
        ([*phases(0), {"from": 4, "weights": {"dice": 1}, "ramp_epochs": 3}, {"from": 6, "weights": {"dice": 1}}], 10,
         "phases.1.ramp_epochs", "at most the 2"),
        (phases(0, -1), 10, "phases.1.from", "got -1"),
        (phases(0, -0.5), 10, "phases.1.from", "got -0.5"),
        (phases(0, 1.0), 10, "phases.1.from", "Write 1 for that epoch"),
        (phases(0, 5.0), 10, "phases.1.from", "Write 5 for that epoch"),
        (phases(0, 5.5), 10, "phases.1.from", "fraction of the run in [0, 1)"),
        (phases(0, float("nan")), 10, "phases.1.from", "nan"),
        (phases(False), 10, "phases.0.from", "False"),
        (phases(0, weights={}), 10, "phases.0.weights", "at least one weight > 0"),
        (phases(0, weights={"dice": 0, "ce": 0.0}), 10, "phases.0.weights", "at least one weight > 0"),
        (phases(0, weights={"dice": -1}), 10, "phases.0.weights.dice", ">= 0, got -1"),
        (phases(0, weights={"dice": float("inf")}), 10, "phases.0.weights.dice", "got inf"),
        (phases(0, weights={"dice": True}), 10, "phases.0.weights.dice", "got True"),
        (phases(0, weights={"dcie": 1}), 10, "phases.0.weights.dcie", "Did you mean 'dice'?"),
        (phases(0, weights=["dice"]), 10, "phases.0.weights", "mapping"),
        ([{"from": 0}], 10, "phases.0.weights", "Add the key"),
        ([{"weights": {"dice": 1}}], 10, "phases.0.from", "Add the key"),
    ],
)  # fmt: skip
def test_bad_phases(listed, epochs, key, part):
    message = error_of(phases=listed, epochs=epochs)
    assert message.startswith(f"{key}: ")
    assert "mine.yaml" in message
    assert part in message


def test_a_late_all_zero_phase_is_refused():
    listed = [*phases(0), {"from": 5, "weights": {"dice": 0}}]
    assert error_of(phases=listed).startswith("phases.1.weights: ")


def test_epochs_and_fractions_mix():
    recipe = build(phases=phases(0.0, 10, 0.5, 90), epochs=100)
    assert recipe.phase_starts() == (0, 10, 50, 90)


def test_ramp_may_fill_its_phase():
    listed = [*phases(0), {"from": 4, "weights": {"ce": 1}, "ramp_epochs": 6}]
    assert build(phases=listed, epochs=10).phases[1].ramp_epochs == 6


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_epoch_of_fraction_is_the_nearest_epoch(epochs, fraction):
    assert abs(epoch_of(fraction, epochs) - fraction * epochs) <= 0.5
    assert epoch_of(epochs, 1) == epochs


# --- terms ------------------------------------------------------------------------------------------------------------


def test_loss_parameters_are_checked():
    assert "alpha" in error_of(losses={"focal": {"alhpa": 0.3}})
    assert "mine.yaml" in error_of(losses={"focal": {"alhpa": 0.3}})
    assert "Did you mean 'focal'?" in error_of(losses={"fokal": {}})
    assert error_of(losses={"nnunet": {"smooth": 1}})
    # a term that no phase weighs may be configured
    assert build(losses={"cldice": {"iterations": 5}}).active_terms() == ("dice",)


def test_loss_parameters_in_scientific_notation_and_lists_are_frozen():
    recipe = build(losses={"focal": {"gamma": "1e0", "class_weights": [1, 2]}})
    assert recipe.losses["focal"] == {"gamma": 1.0, "class_weights": (1, 2)}
    assert recipe.to_mapping()["losses"]["focal"]["class_weights"] == [1, 2]


def test_own_term_needs_a_class():
    listed = phases(0, weights={"mine": 1.0})
    assert "class: package.module:Name" in error_of(phases=listed)
    recipe = build(phases=listed, losses={"mine": {"class": "my_pkg.my_module:MyLoss", "k": 3}})
    assert recipe.active_terms() == ("mine",)
    assert error_of(phases=listed, losses={"mine": {"class": "nonsense"}})


@pytest.mark.parametrize("weights", [{"nnunet": 1.0}, {"nnunet": 1.0, "cldice": 0.2}, {"tversky": 1.0}])
def test_stock_and_planned_terms_are_legal(weights):
    assert build(phases=phases(0, weights=weights)).active_terms() == tuple(weights)


def test_terms_keep_their_order_and_active_ones_have_weight():
    recipe = build(phases=[*phases(0, weights={"dice": 1, "cldice": 0}), {"from": 5, "weights": {"ce": 1, "dice": 0}}])
    assert recipe.terms() == ("dice", "cldice", "ce")
    assert recipe.active_terms() == ("dice", "ce")
