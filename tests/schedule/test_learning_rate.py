import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_topo.recipe import recipe_from_mapping
from nnunet_topo.schedule.learning_rate import learning_rate_at


def recipe(epochs=1000, lr=1e-2, averaging=None, **schedule):
    mapping = {"name": "mine", "epochs": epochs, "phases": [{"from": 0, "weights": {"dice": 1}}]}
    mapping |= {"optimizer": {"lr": lr}, "lr_schedule": schedule, "averaging": averaging}
    return recipe_from_mapping(mapping, "mine.yaml")


def optimizer(lr):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)


@pytest.mark.parametrize(("epochs", "lr"), [(1000, 1e-2), (300, 5e-4), (7, 0.3), (1, 1.0)])
def test_poly_equals_nnunets_scheduler_to_the_bit(epochs, lr):
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

    stock = optimizer(lr)
    scheduler, ours = PolyLRScheduler(stock, lr, epochs), recipe(epochs, lr)
    for epoch in range(epochs + 1):
        scheduler.step(epoch)
        assert learning_rate_at(ours, epoch) == stock.param_groups[0]["lr"]


def test_warmup_then_poly_over_the_rest():
    ours, shorter = recipe(20, 0.1, warmup_epochs=5), recipe(15, 0.1)
    warm = [learning_rate_at(ours, epoch) for epoch in range(5)]
    assert warm == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert warm[-1] == 0.1
    assert [learning_rate_at(ours, 5 + epoch) for epoch in range(16)] == [
        learning_rate_at(shorter, epoch) for epoch in range(16)
    ]


def test_constant():
    ours = recipe(20, 0.1, name="constant", warmup_epochs=2)
    assert [learning_rate_at(ours, epoch) for epoch in (0, 1, 2, 19, 20, 900)] == [0.05, 0.1, 0.1, 0.1, 0.1, 0.1]


@given(st.integers(1, 2000), st.integers(0, 50), st.integers(0, 10**6))
def test_poly_is_real_and_within_bounds(epochs, warmup, epoch):
    value = learning_rate_at(recipe(epochs, 0.1, warmup_epochs=min(warmup, epochs - 1)), epoch)
    assert isinstance(value, float)
    assert 0.0 <= value <= 0.1
    if epoch >= epochs:
        assert value == 0.0


@pytest.mark.parametrize(("first", "factor"), [(10, 2), (8, 2), (5, 1), (3, 3), (1, 1)])
def test_cosine_restarts_equals_torch_behind_the_warmup(first, factor):
    ours = recipe(
        100,
        0.1,
        name="cosine_restarts",
        first_cycle_epochs=first,
        cycle_factor=factor,
        minimum_lr=1e-3,
        warmup_epochs=4,
    )
    reference = optimizer(0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(reference, first, factor, eta_min=1e-3)
    for epoch in range(90):
        assert learning_rate_at(ours, 4 + epoch) == pytest.approx(reference.param_groups[0]["lr"], rel=1e-12)
        reference.step()
        scheduler.step()


def test_plateau_is_a_power_with_a_floor():
    ours = recipe(100, 0.1, name="plateau", factor=0.5, minimum_lr=0.02, warmup_epochs=2)
    assert [learning_rate_at(ours, 50, reductions=times) for times in range(4)] == [0.1, 0.05, 0.025, 0.02]
    assert learning_rate_at(ours, 0, reductions=3) == 0.05  # the warm-up is not reduced


def test_minimum_above_the_learning_rate_does_not_raise_it():
    for name in ("plateau", "cosine_restarts"):
        ours = recipe(100, 1e-8, name=name)
        assert {learning_rate_at(ours, epoch, reductions=2) for epoch in range(100)} == {1e-8}


def test_swa_anneals_as_torchs_swalr():
    ours = recipe(50, 0.1, {"kind": "swa", "start": 20, "lr": 0.01, "anneal_epochs": 10}, name="constant")
    reference = optimizer(0.1)
    scheduler = torch.optim.swa_utils.SWALR(reference, 0.01, anneal_epochs=10, anneal_strategy="cos")
    for epoch in range(20, 50):
        assert learning_rate_at(ours, epoch) == pytest.approx(reference.param_groups[0]["lr"], rel=1e-9)
        reference.step()
        scheduler.step()
    assert learning_rate_at(ours, 19) == 0.1


def test_swa_starts_from_the_schedules_value_there():
    averaging = {"kind": "swa", "start": 0.5, "lr": 1e-4, "anneal_epochs": 4}
    ours, plain = recipe(100, averaging=averaging), recipe(100)
    assert learning_rate_at(ours, 49) == learning_rate_at(plain, 49)
    assert learning_rate_at(ours, 50) == pytest.approx(learning_rate_at(plain, 50))
    assert learning_rate_at(ours, 52) == pytest.approx((learning_rate_at(plain, 50) + 1e-4) / 2)
    assert {learning_rate_at(ours, epoch) for epoch in (54, 80, 99, 100, 3000)} == {1e-4}


def test_swa_at_once_when_there_is_nothing_to_anneal_and_never_in_the_warmup():
    ours = recipe(20, 0.1, {"kind": "swa", "start": 2, "lr": 0.01, "anneal_epochs": 0}, warmup_epochs=4)
    assert [learning_rate_at(ours, epoch) for epoch in (2, 3, 4, 5)] == [pytest.approx(0.075), 0.1, 0.01, 0.01]


@pytest.mark.parametrize(
    "averaging",
    [{"kind": "swa", "start": 90}, {"kind": "ema", "start": 10}, {"kind": "swa", "start": 500, "lr": 1e-5}, None],
)
def test_averaging_without_a_learning_rate_of_its_own_or_past_the_end_leaves_poly_alone(averaging):
    ours, plain = recipe(100, averaging=averaging), recipe(100)
    assert [learning_rate_at(ours, epoch) for epoch in range(101)] == [
        learning_rate_at(plain, epoch) for epoch in range(101)
    ]


@given(
    st.sampled_from(["poly", "constant", "plateau", "cosine_restarts"]),
    st.integers(1, 60),
    st.integers(0, 200),
    st.integers(0, 5000),
    st.sampled_from([None, 1e-9, 1.0]),
)
def test_every_schedule_is_finite_and_not_negative(name, epochs, epoch, reductions, average):
    averaging = {"kind": "swa", "start": 0.5, "lr": average, "anneal_epochs": 3} if average else None
    value = learning_rate_at(recipe(epochs, 0.1, averaging, name=name), epoch, reductions=reductions)
    assert math.isfinite(value)
    assert 0.0 <= value <= 1.0
