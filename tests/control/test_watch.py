import json
import math

import pytest

from nnunet_topo.control.watch import SILENT_EPOCHS, UNIFORM_EPOCHS, MonitorWatch


def watch(recipe, records):
    """What was said, by epoch; the state goes through JSON behind every epoch."""
    control, found = MonitorWatch(recipe), []
    for epoch, monitors in enumerate(records):
        found += [(epoch, event.what) for event in control.end_epoch(epoch, {"monitors": monitors})]
        state, control = control.state_dict(), MonitorWatch(recipe)
        control.load_state_dict(json.loads(json.dumps(state)))
    return found


def test_silence_is_said_once_per_spell(recipe):
    values = [0.5, *[None, math.nan] * 5, 0.4, None, 0.4, *[None] * SILENT_EPOCHS]
    found = watch(recipe(), [{"topology_error": value} for value in values])
    assert found == [
        (SILENT_EPOCHS, "monitor_missing"),
        (11, "monitor_missing_over"),
        (13 + SILENT_EPOCHS, "monitor_missing"),
    ]


def foreground(predicted, spread, labelled=0.1):
    shares = {"foreground_predicted": predicted, "foreground_spread": spread, "foreground_labelled": labelled}
    return {"topology_error": 0.5, **shares}


@pytest.mark.parametrize(
    ("monitors", "uniform"),
    [
        (foreground(0.999, 0.001), True),
        (foreground(0.0, 0.0), True),
        (foreground(0.009, 0.002), True),
        (foreground(0.1, 0.001), False),  # as much as the labels
        (foreground(0.02, 0.002), False),  # little, but something
        (foreground(0.999, 0.1), False),  # not alike in all patches
        (foreground(0.995, 0.001, 0.99), False),  # the labels are nearly full themselves
        (foreground(0.0, 0.0, 0.0), False),  # nothing to be found
        (foreground(0.999, None), False),
        (foreground(None, 0.0), False),
        (foreground(0.999, 0.001, None), False),
    ],
)
def test_uniform_prediction(recipe, monitors, uniform):
    expected = [(UNIFORM_EPOCHS - 1, "uniform_prediction")] if uniform else []
    assert watch(recipe(), [monitors] * 9) == expected


def test_uniform_prediction_names_its_kind_and_its_end(recipe):
    control = MonitorWatch(recipe())
    found = []
    for epoch, predicted in enumerate([0.0] * UNIFORM_EPOCHS + [0.1]):
        found += control.end_epoch(epoch, {"monitors": foreground(predicted, 0.0)})
    assert [event.what for event in found] == ["uniform_prediction", "uniform_prediction_over"]
    assert "background in every patch" in found[0].why
    assert (found[0].before, found[0].after) == (0.1, 0.0)
