import copy
import pickle

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_topo.recipe import recipe_differences, recipe_from_mapping, recipe_to_yaml

MINIMAL = {"name": "mine", "phases": [{"from": 0, "weights": {"dice": 1.0}}]}
RICH = dict(
    MINIMAL,
    epochs=100,
    seed=7,
    optimizer={"name": "adamw", "lr": "5e-4"},
    lr_schedule={"name": "cosine_restarts", "first_cycle_epochs": 8},
    losses={"focal": {"class_weights": [1.0, 2.0]}, "mine": {"class": "a.b:C", "options": {"deep": [1, {"x": None}]}}},
    phases=[{"from": 0, "weights": {"dice": 1}}, {"from": 0.5, "weights": {"mine": 1, "focal": 0.5}, "ramp_epochs": 3}],
    monitor={"patches": 4, "plateau": "pseudo_dice", "reference_weights": {"dice": 1, "mine": 0.5}},
    conflict_every=5,
    plateau={"policy": "head", "actions": ["noise", "learning_rate"], "decay_epochs": None},
    rollback={"catastrophic": None},
    noise={"start": 3, "parameters": "all"},
    averaging={"kind": "swa", "start": 80, "lr": 5e-5},
    early_stopping={},
    network={"patch_size": [32, 64, 64], "features": 8},
    trainable=["decoder.*"],
)


@pytest.mark.parametrize("source", [MINIMAL, RICH])
def test_round_trips(source):
    recipe = recipe_from_mapping(source, "mine.yaml")
    assert recipe_from_mapping(recipe.to_mapping(), "again") == recipe
    assert recipe_from_mapping(yaml.safe_load(recipe_to_yaml(recipe)), "again") == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert copy.deepcopy(recipe) == recipe
    assert hash(recipe) == hash(copy.deepcopy(recipe))


def only_builtins(value):
    if type(value) is dict:
        return all(type(key) is str and only_builtins(item) for key, item in value.items())
    if type(value) is list:
        return all(only_builtins(item) for item in value)
    return value is None or type(value) in (str, int, float, bool)


def test_mapping_holds_builtins_only_and_loads_weights_only(tmp_path):
    import torch

    content = recipe_from_mapping(RICH, "mine.yaml").to_mapping()
    assert only_builtins(content)
    torch.save({"nnunet_topo": content}, tmp_path / "checkpoint.pth")
    assert torch.load(tmp_path / "checkpoint.pth", weights_only=True) == {"nnunet_topo": content}


def test_recipe_is_immutable_all_the_way_down():
    recipe = recipe_from_mapping(RICH, "mine.yaml")
    with pytest.raises(AttributeError):
        recipe.epochs = 3
    for mutate in (
        lambda: recipe.losses.update(x=1),
        lambda: recipe.losses["focal"].__setitem__("gamma", 1),
        lambda: recipe.losses["mine"]["options"].clear(),
        lambda: recipe.phases[0].weights.pop("dice"),
        lambda: recipe.phases[0].weights.setdefault("ce", 1),
        lambda: recipe.phases[0].weights.__delitem__("dice"),
        lambda: recipe.phases[0].weights.__ior__({"ce": 1}),
        lambda: recipe.phases[0].weights.popitem(),
    ):
        with pytest.raises(TypeError, match="with_overrides"):
            mutate()
    copied = recipe.to_mapping()
    copied["phases"][0]["weights"]["dice"] = 9
    copied["losses"]["mine"]["options"]["deep"].append(3)
    assert recipe == recipe_from_mapping(RICH, "mine.yaml")


def test_recipe_does_not_share_the_callers_objects():
    source = copy.deepcopy(RICH)
    recipe = recipe_from_mapping(source, "mine.yaml")
    source["phases"][0]["weights"]["dice"] = 5
    source["losses"]["mine"]["options"]["deep"].append(3)
    assert recipe == recipe_from_mapping(RICH, "mine.yaml")


TERM_NAMES = ("dice", "ce", "focal", "cldice", "boundary", "tversky", "nnunet")


@st.composite
def recipes(draw):
    epochs = draw(st.integers(10, 2000))
    cuts = sorted(draw(st.sets(st.integers(1, epochs - 1), max_size=4)))
    positive = st.floats(1e-6, 100)
    listed = []
    for begin, end in zip([0, *cuts], [*cuts, epochs], strict=True):
        weights = draw(st.dictionaries(st.sampled_from(TERM_NAMES), positive, min_size=1))
        ramp = draw(st.integers(0, end - begin)) if begin else 0
        listed.append({"from": begin, "weights": weights, "ramp_epochs": ramp})
    optimizer = draw(st.sampled_from([{"name": "sgd", "momentum": 0.5}, {"name": "adamw"}, {}]))
    return {
        "name": draw(st.from_regex(r"[a-z0-9]{1,5}(_[a-z0-9]{1,5}){0,2}", fullmatch=True)),
        "epochs": epochs,
        "phases": listed,
        "optimizer": {**optimizer, "lr": draw(positive)},
        "averaging": draw(st.sampled_from([{}, {"kind": "ema"}, {"kind": "swa", "start": 0.5, "lr": 1e-3}])),
        "noise": draw(st.none() | st.fixed_dictionaries({"std": positive, "every": st.integers(1, 50)})),
    }


@settings(max_examples=50)
@given(recipes())
def test_any_recipe_survives_mapping_yaml_and_pickle(source):
    recipe = recipe_from_mapping(source, "drawn")
    assert recipe_from_mapping(recipe.to_mapping(), "again") == recipe
    assert recipe_from_mapping(yaml.safe_load(recipe_to_yaml(recipe)), "again") == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert recipe_differences(recipe, recipe) == []
    assert recipe.phase_starts() == tuple(phase["from"] for phase in source["phases"])
