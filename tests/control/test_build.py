import json

import pytest

from nnunet_topo.control import build_controls, load_control_states
from nnunet_topo.errors import CheckpointError
from nnunet_topo.recipe import builtin_recipes, load_recipe

ALWAYS = ["phases", "learning_rate", "monitors", "best"]


def test_v9_has_everything_in_its_order():
    assert list(build_controls(load_recipe("v9_progressive"))) == [
        *ALWAYS,
        "kept_weights",
        "rollback",
        "plateau",
        "noise",
        "averaging",
        "early_stopping",
    ]


@pytest.mark.parametrize("name", ["nnunet", "progressive"])
def test_a_recipe_without_mechanisms_has_none(name):
    assert list(build_controls(load_recipe(name))) == ALWAYS


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"plateau": {}}, False),
        ({"plateau": {"actions": ["loss_weights"]}}, False),
        ({"plateau": {"actions": ["learning_rate", "noise"]}}, True),
        ({"plateau": {"actions": ["momentum"]}}, True),
        ({"rollback": {}}, True),
        ({"noise": {}}, False),
    ],
)
def test_weights_are_kept_only_where_something_may_go_back(recipe, settings, kept):
    assert ("kept_weights" in build_controls(recipe(**settings))) == kept


def test_best_and_kept_weights_follow_their_own_monitors(recipe):
    controls = build_controls(recipe(rollback={}, monitor={"best": "pseudo_dice", "rollback": "topology_error"}))
    assert controls["best"].monitor == "pseudo_dice"
    assert controls["kept_weights"].monitor == "topology_error"


@pytest.mark.parametrize("name", sorted(builtin_recipes()))
def test_states_of_every_recipe_are_json_and_load(name):
    recipe = load_recipe(name)
    states = {key: control.state_dict() for key, control in build_controls(recipe).items()}
    section = {"controls": json.loads(json.dumps(states, allow_nan=False)), "version": "0"}
    load_control_states(build_controls(recipe), section, "a.pth")


def test_a_control_of_another_version_is_refused(recipe):
    with pytest.raises(CheckpointError, match="'rollback'"):
        load_control_states(build_controls(recipe()), {"controls": {"rollback": {}}, "version": "9"}, "a.pth")
