import re

import pytest

from nnunet_topo.errors import ConfigError
from nnunet_topo.recipe import Averaging, Optimizer, load_recipe, recipe_differences, recipe_from_mapping, remarks


def build(**changes):
    mapping = {"name": "mine", "phases": [{"from": 0, "weights": {"dice": 1.0}}], **changes}
    return recipe_from_mapping(mapping, "mine.yaml")


def test_overrides():
    base = load_recipe("progressive")
    changed = base.with_overrides(
        ["optimizer.lr=1e-3", "epochs=50", "phases.1.weights.focal=0.3", "network.patch_size=[32, 32, 32]", "seed=null",
         "plateau.patience=3", "early_stopping={patience: 7}", "name=other", "losses.focal.gamma=1e0"]
    )  # fmt: skip
    assert changed.optimizer.lr == 1e-3
    assert changed.epochs == 50
    assert changed.phases[1].weights == {"dice": 0.8, "focal": 0.3}
    assert changed.network.patch_size == (32, 32, 32)
    assert (changed.plateau.patience, changed.plateau.policy) == (3, "conservative")
    assert changed.early_stopping.patience == 7
    assert changed.name == "other"
    assert changed.losses["focal"]["gamma"] == 1.0
    assert base == load_recipe("progressive")
    assert base.with_overrides([]) == base


def test_choosing_another_kind_drops_what_only_the_old_one_had():
    assert build().with_overrides(["optimizer.name=adamw"]).optimizer == Optimizer("adamw", 1e-2, 3e-5, None)
    back = build(optimizer={"name": "adamw"}).with_overrides(["optimizer.name=sgd"])
    assert back.optimizer == Optimizer()
    changed = load_recipe("v1").with_overrides(["lr_schedule.name=poly", "averaging.kind=none"])
    assert (changed.lr_schedule.first_cycle_epochs, changed.lr_schedule.warmup_epochs) == (None, 5)
    assert changed.averaging == Averaging()
    with pytest.raises(ConfigError, match="momentum"):
        build().with_overrides(["optimizer.momentum=0.9", "optimizer.name=adamw"])


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("optimzer.lr=1", "Did you mean 'optimizer'?"),
        ("optimizer.lrr=1", "Did you mean 'lr'?"),
        ("epoch=1", "Did you mean 'epochs'?"),
        ("epochs", "expected KEY=VALUE, got 'epochs'"),
        ("=3", "expected KEY=VALUE"),
        ("epochs=[", "override 'epochs=['"),
        ("epochs=1.5", "got 1.5"),
        ("phases.3.weights.dice=1", "an index from 0 to 2, got '3'"),
        ("phases.-1.weights.dice=1", "an index from 0 to 2"),
        ("phases.one.weights.dice=1", "an index"),
        ("epochs.x=1", "epochs: expected a mapping or a list to go into, got 1000"),
        ("optimizer=3", "optimizer: expected a mapping"),
        ("phases.0.weights.dice=0", "at least one weight > 0"),
        ("epochs=5", "one of the 5 epochs"),
        ("losses.focal.alhpa=1", "alhpa"),
    ],
)
def test_bad_override(override, part):
    with pytest.raises(ConfigError, match=re.escape(part)):
        load_recipe("progressive").with_overrides([override])


def test_differences_are_dotted_lines():
    base = load_recipe("progressive")
    changed = base.with_overrides(["optimizer.lr=1e-3", "phases.2.weights.cldice=0.1", "early_stopping.patience=4"])
    assert recipe_differences(base, changed) == [
        "optimizer.lr: 0.01 -> 0.001",
        "phases.2.weights.cldice: absent -> 0.1",
        "early_stopping: null -> {'patience': 4}",
    ]
    shorter = base.with_overrides(["phases=[{from: 0, weights: {dice: 1}}]"])
    assert [line.split(":")[0] for line in recipe_differences(base, shorter)] == ["phases.1", "phases.2"]


def test_remarks_name_what_never_acts():
    recipe = build(epochs=10, noise={"start": 10}, averaging={"kind": "swa", "start": 12}, losses={"cldice": {}})
    assert [remark.split(":")[0] for remark in remarks(recipe)] == ["noise.start", "averaging.start", "losses.cldice"]
    assert remarks(build()) == []
