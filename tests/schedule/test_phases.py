import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_topo.recipe import load_recipe, recipe_from_mapping
from nnunet_topo.schedule.phases import phase_index_at, weights_at


def recipe(*phases, epochs=20):
    return recipe_from_mapping({"name": "mine", "epochs": epochs, "phases": list(phases)}, "mine.yaml")


STEPS = recipe(
    {"from": 0, "weights": {"dice": 1}},
    {"from": 5, "weights": {"dice": 0.5, "ce": 0.5}},
    {"from": 0.5, "weights": {"ce": 2}},
)
RAMPS = recipe(
    {"from": 0, "weights": {"dice": 1}},
    {"from": 4, "weights": {"dice": 0.5, "ce": 2}, "ramp_epochs": 4},
    {"from": 8, "weights": {"focal": 1, "ce": 0}},
    {"from": 10, "weights": {"dice": 1}, "ramp_epochs": 10},
)


@pytest.mark.parametrize(("epoch", "index"), [(0, 0), (4, 0), (5, 1), (9, 1), (10, 2), (19, 2), (20, 2), (500, 2)])
def test_phase_index(epoch, index):
    assert phase_index_at(STEPS, epoch) == index


@pytest.mark.parametrize(
    ("epoch", "weights"),
    [
        (0, {"dice": 1.0, "ce": 0.0}),
        (4, {"dice": 1.0, "ce": 0.0}),
        (5, {"dice": 0.5, "ce": 0.5}),
        (10, {"dice": 0.0, "ce": 2.0}),
        (99, {"dice": 0.0, "ce": 2.0}),
    ],
)
def test_steps(epoch, weights):
    assert weights_at(STEPS, epoch) == weights


@pytest.mark.parametrize(
    ("epoch", "dice", "ce", "focal"),
    [
        (3, 1.0, 0.0, 0.0),
        (4, 1.0, 0.0, 0.0),  # the ramp begins with the old weights
        (5, 0.875, 0.5, 0.0),
        (6, 0.75, 1.0, 0.0),
        (7, 0.625, 1.5, 0.0),
        (8, 0.0, 0.0, 1.0),  # a step right behind a ramp that filled its phase
        (10, 0.0, 0.0, 1.0),
        (15, 0.5, 0.0, 0.5),
        (20, 1.0, 0.0, 0.0),  # start + ramp_epochs: the phase's own
    ],
)
def test_ramps(epoch, dice, ce, focal):
    assert weights_at(RAMPS, epoch) == pytest.approx({"dice": dice, "ce": ce, "focal": focal}, abs=1e-12)


def test_all_terms_of_the_recipe_are_there_from_the_start():
    assert weights_at(load_recipe("progressive"), 0) == {"dice": 1.0, "focal": 0.0, "variance": 0.0, "boundary": 0.0}


@given(st.integers(0, 40), st.integers(1, 10))
def test_a_ramp_is_linear_monotonic_and_ends_exactly(epoch, ramp):
    ramped = recipe({"from": 0, "weights": {"dice": 0.3}}, {"from": 10, "weights": {"dice": 0.9}, "ramp_epochs": ramp})
    weight = weights_at(ramped, epoch)["dice"]
    share = min(1.0, max(0.0, (epoch - 10) / ramp))
    assert weight == pytest.approx(0.3 + 0.6 * share, abs=1e-12)
    if epoch >= 10 + ramp:
        assert weight == 0.9
