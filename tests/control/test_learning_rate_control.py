import math

import pytest
import torch

from nnunet_topo.control.learning_rate import LearningRateControl


def test_a_boost_lasts_and_decays_back_to_exactly_one(recipe):
    control = LearningRateControl(recipe(lr_schedule={"name": "constant"}))
    control.scale(4.0, 4)
    rates = []
    for epoch in range(6):
        rates.append(control.learning_rate(epoch) / 0.01)
        control.end_epoch(epoch, {})
    assert rates == pytest.approx([4.0, 4**0.75, 2.0, 4**0.25, 1.0, 1.0])
    assert control.multiplier == 1.0


def test_a_boost_without_decay_stays_and_multiplies_the_schedule(recipe):
    control, plain = LearningRateControl(recipe()), LearningRateControl(recipe())
    control.scale(3.0, None)
    for epoch in range(100):
        control.end_epoch(epoch, {})
        assert control.learning_rate(epoch) == plain.learning_rate(epoch) * 3.0


@pytest.mark.parametrize(("factor", "left"), [(100.0, 5.0), (1e-9, 0.2), (1.0, 1.0), (math.inf, 5.0)])
def test_cap_in_both_directions(recipe, factor, left):
    control = LearningRateControl(recipe(plateau={"max_lr_scale": 5.0}))
    assert control.scaled(factor) == left
    control.scale(factor, 7)
    assert control.multiplier == left


def test_a_factor_and_its_inverse_cancel_to_the_bit(recipe):
    control = LearningRateControl(recipe(plateau={"max_lr_scale": 50.0}))
    for factor in (1.15, 2.75, 32.5, 3.0, 1 / 3):
        control.scale(factor, None)
        control.scale(1 / control.multiplier, 20)
        assert (control.multiplier, control.decay_epochs) == (1.0, None)


@pytest.mark.parametrize("patience", [1, 3, 8])
def test_plateau_schedule_equals_torchs(recipe, patience):
    series = torch.rand(200, generator=torch.Generator().manual_seed(patience)).sort(descending=True).values
    noise = 0.05 * torch.randn(200, generator=torch.Generator().manual_seed(1))
    losses = (series + noise + 1.0).tolist()
    settings = {"name": "plateau", "patience": patience, "factor": 0.7, "threshold": 1e-3, "minimum_lr": 1e-5}
    control = LearningRateControl(recipe(200, lr_schedule=settings))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.7, patience=patience, threshold=1e-3, min_lr=1e-5
    )
    for epoch, loss in enumerate(losses):
        assert control.learning_rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        control.end_epoch(epoch, {"monitors": {"reference_loss": loss}})
        scheduler.step(loss)
    assert control.reductions > 0


def reductions(control, values, name="reference_loss"):
    return [
        epoch
        for epoch, value in enumerate(values)
        for event in control.end_epoch(epoch, {"monitors": {name: value}})
        if event.what == "lr_reduced"
    ]


def test_plateau_schedule_rests_during_warmup_and_gaps(recipe):
    settings = {"name": "plateau", "patience": 2, "warmup_epochs": 3}
    control = LearningRateControl(recipe(lr_schedule=settings))
    assert reductions(control, [0.1, 0.1, 0.1, 0.5, 0.5, None, math.nan, 0.5, 0.5, 0.5]) == [8]


def test_plateau_schedule_starts_anew_with_a_phase(recipe):
    phases = [{"from": 0, "weights": {"dice": 1}}, {"from": 3, "weights": {"ce": 1}}]
    control = LearningRateControl(recipe(phases=phases, lr_schedule={"name": "plateau", "patience": 2}))
    assert reductions(control, [0.5, 0.5, 0.5, 0.9, 0.9, 0.9, 0.9]) == [6]


def test_plateau_schedule_of_a_dice_and_of_a_negative_loss(recipe):
    settings = {"lr_schedule": {"name": "plateau", "patience": 1, "threshold": 0.1}}
    control = LearningRateControl(recipe(monitor={"lr_schedule": "pseudo_dice"}, **settings))
    assert reductions(control, [0.5, 0.6, 0.7, 0.8, 0.7, 0.7], "pseudo_dice") == [5]
    control = LearningRateControl(recipe(**settings))
    assert reductions(control, [-0.5, -0.6, -0.7, -0.71, -0.72]) == [4]


def test_plateau_schedule_stops_at_its_minimum_and_while_averaging(recipe):
    settings = {"name": "plateau", "patience": 1, "factor": 0.1, "minimum_lr": 1e-3}
    assert reductions(LearningRateControl(recipe(lr_schedule=settings)), [0.5] * 20) == [2]
    averaging = {"kind": "swa", "start": 2, "lr": 1e-4}
    assert reductions(LearningRateControl(recipe(lr_schedule=settings, averaging=averaging)), [0.5] * 20) == []
