"""Noise, averaging, phases and early stopping."""

import pytest

from nnunet_topo.control.action import StopTraining
from nnunet_topo.control.averaging import AveragingControl
from nnunet_topo.control.early_stopping import EarlyStoppingControl
from nnunet_topo.control.noise import ESCAPE, SCHEDULED, NoiseControl, noise_seed
from nnunet_topo.control.phases import PhaseControl


def noises(control, epochs):
    return {epoch: event.action for epoch in range(epochs) for event in control.start_epoch(epoch)}


def test_noise_decays_with_each_time(recipe):
    ours = recipe(noise={"start": 3, "every": 2, "std": 0.01, "decay": 0.5, "parameters": "all"}, seed=3)
    found = noises(NoiseControl(ours), 8)
    assert {epoch: action.std for epoch, action in found.items()} == {3: 0.01, 5: 0.005, 7: 0.0025}
    assert {action.parameters for action in found.values()} == {"all"}


def test_noise_of_a_fraction_of_the_run(recipe):
    assert list(noises(NoiseControl(recipe(20, noise={"start": 0.5, "every": 4})), 20)) == [10, 14, 18]


def test_seeds_differ_by_recipe_epoch_and_occasion_and_by_nothing_else(recipe):
    one, other = recipe(seed=1), recipe(seed=2)
    seeds = [noise_seed(ours, epoch, occasion) for ours in (one, other) for epoch in (4, 5) for occasion in (0, 1)]
    assert len(set(seeds)) == 8
    assert noise_seed(one, 4, SCHEDULED) == noise_seed(recipe(7, seed=1), 4, SCHEDULED)
    assert noise_seed(recipe(), 4, ESCAPE) == noise_seed(recipe(seed=0), 4, ESCAPE)


def test_an_epoch_that_starts_twice_gets_its_noise_once(recipe):
    ours = recipe(noise={"start": 0, "every": 1})
    control, resumed = NoiseControl(ours), NoiseControl(ours)
    assert len(control.start_epoch(0)) == 1
    resumed.load_state_dict(control.state_dict())
    assert resumed.start_epoch(0) == []
    assert len(resumed.start_epoch(1)) == 1


def test_noise_that_has_decayed_to_nothing_stops(recipe):
    control = NoiseControl(recipe(2000, noise={"start": 0, "every": 1, "decay": 1e-200}))
    assert list(noises(control, 5)) == [0, 1]


@pytest.mark.parametrize(
    ("settings", "epochs", "part"),
    [
        ({"kind": "swa", "start": 6, "lr": 1e-4}, [6], "to 0.0001 over 10 epochs"),
        ({"kind": "swa", "start": 6, "every": 3}, [6], "every 3 epochs"),
        ({"kind": "ema", "start": 0.5}, [5], "decay 0.999"),
        ({"kind": "ema", "start": 12}, [], ""),
    ],
)
def test_averaging_is_announced_once(recipe, settings, epochs, part):
    control = AveragingControl(recipe(10, averaging=settings))
    found = [(epoch, event) for epoch in range(10) for event in control.start_epoch(epoch)]
    assert [epoch for epoch, _ in found] == epochs
    assert all(part in event.why for _, event in found)


def test_averaging_says_what_belongs_to_it(recipe):
    swa = AveragingControl(recipe(10, averaging={"kind": "swa", "start": 7, "every": 2}))
    assert [epoch for epoch in range(10) if swa.due_after_epoch(epoch)] == [7, 9]
    assert not any(swa.due_after_step(epoch) for epoch in range(10))


def test_factors_on_weights_last_until_the_next_phase(recipe):
    phases = [
        {"from": 0, "weights": {"dice": 1.0, "focal": 0.5}},
        {"from": 4, "weights": {"dice": 1.0, "focal": 0.4}, "ramp_epochs": 2},
    ]
    control, weights = PhaseControl(recipe(10, phases)), []
    for epoch in range(7):
        control.start_epoch(epoch)
        weights.append(control.weights["focal"])
        if epoch in (0, 2):
            control.scale({"focal": 0.5})
    assert weights == [0.5, 0.25, 0.25, 0.125, 0.5, pytest.approx(0.45), 0.4]
    assert control.weights["dice"] == 1.0


def test_factors_survive_a_checkpoint(recipe):
    control, resumed = PhaseControl(recipe()), PhaseControl(recipe())
    control.scale({"dice": 0.5})
    resumed.load_state_dict(control.state_dict())
    resumed.start_epoch(1)
    assert resumed.weights == {"dice": 0.5}


def test_early_stopping_fires_once_after_its_patience(recipe, feed):
    control = EarlyStoppingControl(recipe(early_stopping={"patience": 3}))
    found = feed(control, [0.5, 0.4, 0.4, 0.5, None, 0.41, 0.3, 0.2])
    assert [(epoch, event.action) for epoch, event in found] == [(5, StopTraining())]
    assert control.stopped


def test_early_stopping_survives_a_checkpoint_at_any_epoch(recipe, feed):
    ours, values = recipe(early_stopping={"patience": 3}), [0.5, 0.4, 0.4, None, 0.5, 0.41, 0.3, 0.2]
    for epoch in range(len(values)):
        control, resumed = EarlyStoppingControl(ours), EarlyStoppingControl(ours)
        found = feed(control, values[:epoch])
        resumed.load_state_dict(control.state_dict())
        found += feed(resumed, values[epoch:], first=epoch)
        assert [where for where, _ in found] == [5]
        assert resumed.stopped


def test_early_stopping_of_a_dice_goes_up(recipe, feed):
    ours = recipe(early_stopping={"patience": 2}, monitor={"early_stopping": "ema_pseudo_dice"})
    found = feed(EarlyStoppingControl(ours), [0.1, 0.2, 0.3, 0.3, 0.25], name="ema_pseudo_dice")
    assert [epoch for epoch, _ in found] == [4]


def test_a_phase_gives_early_stopping_new_patience(recipe, feed):
    phases = [{"from": 0, "weights": {"dice": 1}}, {"from": 3, "weights": {"ce": 1}}]
    control = EarlyStoppingControl(recipe(phases=phases, early_stopping={"patience": 3}))
    assert [epoch for epoch, _ in feed(control, [0.5] * 9)] == [5]


def test_a_monitor_that_is_never_there_stops_nothing(recipe, feed):
    control = EarlyStoppingControl(recipe(early_stopping={"patience": 1}))
    assert feed(control, [None, float("nan")] * 20) == []
