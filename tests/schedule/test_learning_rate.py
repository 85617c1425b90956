import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_topo.errors import ConfigError
from nnunet_topo.recipe import recipe_from_mapping
from nnunet_topo.schedule.learning_rate import learning_rate_at


def recipe(epochs=1000, lr=1e-2, **schedule):
    mapping = {"name": "mine", "epochs": epochs, "phases": [{"from": 0, "weights": {"dice": 1}}]}
    return recipe_from_mapping({**mapping, "optimizer": {"lr": lr}, "lr_schedule": schedule}, "mine.yaml")


@pytest.mark.parametrize(("epochs", "lr"), [(1000, 1e-2), (300, 5e-4), (7, 0.3), (1, 1.0)])
def test_poly_equals_nnunets_scheduler_to_the_bit(epochs, lr):
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler, ours = PolyLRScheduler(optimizer, lr, epochs), recipe(epochs, lr)
    for epoch in range(epochs + 1):
        scheduler.step(epoch)
        assert learning_rate_at(ours, epoch) == optimizer.param_groups[0]["lr"]


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


@pytest.mark.parametrize("name", ["plateau", "cosine_restarts"])
def test_planned_schedules_say_so(name):
    with pytest.raises(ConfigError, match=rf"lr_schedule.name: .*'{name}', which is not available yet"):
        learning_rate_at(recipe(name=name), 0)
