import pytest

from nnunet_topo.recipe import builtin_recipes, load_recipe, recipe_from_mapping
from nnunet_topo.schedule import mechanisms
from nnunet_topo.schedule.mechanisms import unavailable_mechanisms


@pytest.fixture(autouse=True)
def planned(monkeypatch):
    """One known term counts as planned, whichever still are."""
    monkeypatch.setattr(mechanisms, "PLANNED_TERMS", frozenset({"tversky"}))


def missing(**changes):
    mapping = {"name": "mine", "phases": [{"from": 0, "weights": {"dice": 1}}], **changes}
    return unavailable_mechanisms(recipe_from_mapping(mapping, "mine.yaml"))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"lr_schedule": {"name": "plateau"}, "plateau": {}, "rollback": {}, "noise": {}, "early_stopping": {}}, []),
        ({"lr_schedule": {"name": "cosine_restarts"}, "averaging": {"kind": "ema"}}, []),
        ({"losses": {"tversky": {}}}, []),
        ({"phases": [{"from": 0, "weights": {"dice": 1, "tversky": 0}}]}, []),
        (
            {"phases": [{"from": 0, "weights": {"dice": 1, "tversky": 0.5}}]},
            ["phases.0.weights.tversky: 0.5"],
        ),
        ({"phases": [{"from": 0, "weights": {"nnunet": 1, "cldice": 0.2}}]}, []),
    ],
)
def test_only_planned_terms_with_a_weight_are_named(changes, found):
    assert missing(**changes) == found


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_recipe_of_the_package_can_be_trained(name):
    assert unavailable_mechanisms(load_recipe(name)) == []
