import pytest

from nnunet_topo.recipe import load_recipe, recipe_from_mapping
from nnunet_topo.schedule.mechanisms import unavailable_mechanisms


def missing_keys(**changes):
    mapping = {"name": "mine", "phases": [{"from": 0, "weights": {"dice": 1}}], **changes}
    return [item.split(":")[0] for item in unavailable_mechanisms(recipe_from_mapping(mapping, "mine.yaml"))]


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, []),
        ({"lr_schedule": {"name": "constant", "warmup_epochs": 5}}, []),
        ({"optimizer": {"name": "adamw"}, "gradient_clip": 1, "sampling": {"foreground": 0.5}}, []),
        ({"losses": {"tversky": {}}}, []),
        ({"phases": [{"from": 0, "weights": {"dice": 1, "tversky": 0}}]}, []),
        ({"phases": [{"from": 0, "weights": {"dice": 1, "tversky": 0.5}}]}, ["phases.0.weights.tversky"]),
        ({"phases": [{"from": 0, "weights": {"nnunet": 1, "cldice": 0.2}}]}, []),
        ({"lr_schedule": {"name": "plateau"}}, ["lr_schedule.name"]),
        ({"lr_schedule": {"name": "cosine_restarts"}}, ["lr_schedule.name"]),
        ({"plateau": {}}, ["plateau"]),
        ({"rollback": {}}, ["rollback"]),
        ({"noise": {}}, ["noise"]),
        ({"early_stopping": {}}, ["early_stopping"]),
        ({"averaging": {"kind": "ema"}}, ["averaging.kind"]),
        ({"averaging": {"kind": "none"}}, []),
    ],
)
def test_each_mechanism_is_named(changes, keys):
    assert missing_keys(**changes) == keys


def test_values_are_shown():
    assert "lr_schedule.name: plateau" in unavailable_mechanisms(load_recipe("v9_progressive"))
    assert "averaging.kind: swa" in unavailable_mechanisms(load_recipe("v9_progressive"))


@pytest.mark.parametrize("name", ["nnunet", "progressive"])
def test_defaults_of_the_trainers_can_be_trained(name):
    assert unavailable_mechanisms(load_recipe(name)) == []
