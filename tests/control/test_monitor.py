import json
import math

import pytest

from nnunet_topo._recipe_sections import MONITORS
from nnunet_topo.control.monitor import BestControl, SmoothedMonitor, cost, higher_is_better, measured, monitors_in_use


def record(value, name="reference_loss"):
    return {"monitors": {name: value}}


def test_directions():
    assert {name: higher_is_better(name) for name in MONITORS} == {
        "reference_loss": False,
        "topology_error": False,
        "ema_pseudo_dice": True,
        "pseudo_dice": True,
    }
    assert cost(record(0.7, "pseudo_dice"), "pseudo_dice") == -0.7
    assert cost(record(0.7), "reference_loss") == 0.7


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 10**400, True, "0.5", [0.5]])
def test_what_is_no_finite_number_is_no_value(value):
    assert measured(record(value), "reference_loss") is None
    monitor = SmoothedMonitor("reference_loss", 3)
    assert monitor.observe(record(0.5), 0.0) is True
    assert monitor.observe(record(value), 0.0) is None
    assert (monitor.window, monitor.best) == ([0.5], 0.5)


def test_absent():
    assert measured({}, "reference_loss") is None
    assert measured({"monitors": {}}, "reference_loss") is None


def test_one_outlier_does_not_move_the_median_to_itself():
    monitor = SmoothedMonitor("reference_loss", 3)
    values = []
    for value in (0.5, 0.5, 0.1, 0.5, 0.4, 0.4):
        monitor.observe(record(value), 0.002)
        values.append(monitor.value)
    assert values == [0.5, 0.5, 0.5, 0.5, 0.4, 0.4]
    assert monitor.best == 0.4


def test_of_two_values_the_worse_counts():
    monitor = SmoothedMonitor("pseudo_dice", 4)
    monitor.observe(record(0.5, "pseudo_dice"), 0.0)
    assert monitor.observe(record(0.9, "pseudo_dice"), 0.0) is False
    assert monitor.value == -0.5


def test_threshold_is_strict_and_does_not_creep():
    monitor = SmoothedMonitor("reference_loss", 1)
    assert monitor.observe(record(1.0), 0.5) is True
    assert monitor.observe(record(0.5), 0.5) is False
    assert monitor.best == 1.0
    assert monitor.observe(record(0.4), 0.5) is True
    assert monitor.best == 0.4


def test_best_is_that_of_the_run_and_gaps_are_not():
    best, seen = BestControl("ema_pseudo_dice"), []
    for epoch, value in enumerate([None, 0.3, 0.5, 0.5, math.nan, 0.4, 0.6]):
        best.end_epoch(epoch, record(value, "ema_pseudo_dice"))
        seen.append(best.improved)
    assert seen == [False, True, True, False, False, False, True]
    assert (best.epoch, best.best) == (6, -0.6)


def test_states_are_json_and_bring_everything_back():
    best, monitor = BestControl("pseudo_dice"), SmoothedMonitor("reference_loss", 3)
    for empty in (True, False):
        if not empty:
            best.end_epoch(3, record(0.5, "pseudo_dice"))
            monitor.observe(record(0.5), 0.0)
        other_best, other = BestControl("pseudo_dice"), SmoothedMonitor("reference_loss", 3)
        other_best.load_state_dict(json.loads(json.dumps(best.state_dict(), allow_nan=False)))
        other.load_state_dict(json.loads(json.dumps(monitor.state_dict(), allow_nan=False)))
        assert vars(other_best) == vars(best)
        assert vars(other) == vars(monitor)


def test_only_the_monitors_that_drive_something_are_in_use(recipe):
    monitor = {"best": "pseudo_dice", "plateau": "topology_error", "early_stopping": "ema_pseudo_dice"}
    assert monitors_in_use(recipe(monitor=monitor)) == ("pseudo_dice",)
    assert monitors_in_use(recipe(monitor=monitor, plateau={})) == ("pseudo_dice", "topology_error")
    assert monitors_in_use(recipe(monitor=monitor, rollback={}, early_stopping={})) == (
        "pseudo_dice",
        "reference_loss",
        "ema_pseudo_dice",
    )
    assert "reference_loss" in monitors_in_use(recipe(lr_schedule={"name": "plateau"}))
