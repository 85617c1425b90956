import pytest

from nnunet_topo.recipe import recipe_from_mapping
from nnunet_topo.schedule.averaging import averages_after_epoch, averages_after_step, averaging_start


def recipe(epochs=10, **averaging):
    phases = [{"from": 0, "weights": {"dice": 1}}]
    return recipe_from_mapping({"name": "mine", "epochs": epochs, "phases": phases, "averaging": averaging}, "mine")


def epochs(function, recipe):
    return [epoch for epoch in range(recipe.epochs) if function(recipe, epoch)]


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        ({}, None),
        ({"kind": "none"}, None),
        ({"kind": "swa", "start": 0}, 0),
        ({"kind": "ema", "start": 0.5}, 5),
        ({"kind": "swa", "start": 9}, 9),
        ({"kind": "swa", "start": 10}, None),
        ({"kind": "ema", "start": 500}, None),
    ],
)
def test_start(settings, start):
    assert averaging_start(recipe(**settings)) == start


def test_swa_takes_every_so_many_epochs_from_its_start_and_no_step():
    ours = recipe(kind="swa", start=3, every=3)
    assert epochs(averages_after_epoch, ours) == [3, 6, 9]
    assert epochs(averages_after_step, ours) == []


def test_ema_takes_every_step_from_its_start_and_no_epoch():
    ours = recipe(kind="ema", start=0.7)
    assert epochs(averages_after_step, ours) == [7, 8, 9]
    assert epochs(averages_after_epoch, ours) == []


@pytest.mark.parametrize("settings", [{}, {"kind": "swa", "start": 10}, {"kind": "ema", "start": 11}])
def test_nothing_without_a_start_within_the_run(settings):
    ours = recipe(**settings)
    assert not any(averages_after_step(ours, epoch) or averages_after_epoch(ours, epoch) for epoch in range(40))
