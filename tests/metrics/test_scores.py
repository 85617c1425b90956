"""All metrics by name: each from its own function, the documented values of empty masks, and the ignore mask."""

import math

import numpy as np
import pytest

from nnunet_topo.errors import ConfigError
from nnunet_topo.metrics.betti import betti_errors, betti_numbers, euler_characteristic
from nnunet_topo.metrics.betti_matching import betti_matching_error
from nnunet_topo.metrics.cldice import cldice
from nnunet_topo.metrics.leaderboard import leaderboard_score
from nnunet_topo.metrics.registry import METRICS
from nnunet_topo.metrics.scores import scores
from nnunet_topo.metrics.surface import surface_dice, surface_errors
from nnunet_topo.metrics.voi import partition_agreement

SPACING = (0.5, 1.0, 3.0)
ALL = list(METRICS)
OF_VOLUMES = {"leaderboard", "topo_score"}


def masks(seed=0, shape=(9, 11, 13)):
    generator = np.random.default_rng(seed)
    return generator.random(shape) < 0.35, generator.random(shape) < 0.3


@pytest.mark.parametrize("connectivity", [26, 6])
def test_each_value_is_that_of_its_own_function(connectivity):
    prediction, truth = (np.pad(mask, ((2, 5), (1, 0), (3, 3))) for mask in masks())
    found = scores(prediction, truth, ALL, spacing_mm=SPACING, tolerance_mm=0.6, connectivity=connectivity)
    assert list(found) == ALL
    overlap = 2 * (prediction & truth).sum() / (prediction.sum() + truth.sum())
    assert found["dice"] == overlap
    assert found["foreground_predicted"] == prediction.mean()
    assert found["foreground_labelled"] == truth.mean()
    assert found["cldice"] == cldice(prediction, truth)
    assert tuple(found[f"betti_{k}_error"] for k in range(3)) == betti_errors(
        prediction, truth, connectivity=connectivity
    )
    for mask, which in ((prediction, "predicted"), (truth, "labelled")):
        numbers = tuple(found[f"betti_{k}_{which}"] for k in range(3))
        assert numbers == betti_numbers(mask, connectivity=connectivity)
    characteristics = [euler_characteristic(mask, connectivity=connectivity) for mask in (prediction, truth)]
    assert found["euler_error"] == abs(characteristics[0] - characteristics[1])
    assert found["surface_dice"] == surface_dice(prediction, truth, spacing_mm=SPACING, tolerance_mm=0.6)
    errors = surface_errors(prediction, truth, spacing_mm=SPACING)
    assert (found["hd95"], found["assd"]) == (errors.hd95, errors.assd)
    agreement = partition_agreement(prediction, truth, connectivity=connectivity)
    assert (found["voi_split"], found["voi_merge"], found["ari"]) == pytest.approx(
        (agreement.voi_split, agreement.voi_merge, agreement.ari)
    )
    assert found["betti_matching_error"] == betti_matching_error(prediction, truth)
    official = leaderboard_score(prediction, truth)
    assert (found["leaderboard"], found["topo_score"], found["voi_score"]) == (
        official.score,
        official.topo_score,
        official.voi_score,
    )


def test_the_scores_of_the_competition_keep_their_own_settings():
    prediction, truth = masks()
    names = ["leaderboard", "topo_score", "voi_score"]
    expected = scores(prediction, truth, names, spacing_mm=(1, 1, 1))
    assert scores(prediction, truth, names, spacing_mm=SPACING, tolerance_mm=0.1, connectivity=6) == expected
    agreement = partition_agreement(prediction, truth, connectivity=26)
    found = scores(prediction, truth, ["voi_score"], spacing_mm=SPACING, connectivity=6)
    assert found["voi_score"] == pytest.approx(1 / (1 + 0.3 * (agreement.voi_split + agreement.voi_merge)))


def test_ignored_voxels_change_nothing_and_are_no_background():
    prediction, truth = masks()
    ignore = np.zeros_like(truth)
    ignore[2:5, 3:7] = True
    expected = scores(prediction, truth, ALL, spacing_mm=SPACING, ignore=ignore)
    for value in (True, False):
        changed = np.where(ignore, value, prediction)
        assert scores(changed, truth, ALL, spacing_mm=SPACING, ignore=ignore) == expected
        changed = np.where(ignore, value, truth)
        assert scores(prediction, changed, ALL, spacing_mm=SPACING, ignore=ignore) == expected
    assert expected["foreground_labelled"] == truth[~ignore].mean()
    assert expected["accuracy"] == (prediction == truth)[~ignore].mean()
    assert expected != scores(prediction, truth, ALL, spacing_mm=SPACING)


NAN, DIAGONAL = math.nan, math.hypot(4.5, 11, 39)
UNDEFINED = dict.fromkeys(("dice", "iou", "precision", "recall", "cldice", "surface_dice", "hd95", "assd"), NAN)
UNDEFINED |= dict.fromkeys(("voi_split", "voi_merge", "ari"), NAN)
NUMBERS = dict.fromkeys((f"betti_{k}_error" for k in range(3)), 0) | {
    "euler_error": 0,
    "betti_matching_error": 0,
    "leaderboard": 1,
    "topo_score": 1,
    "voi_score": 1,
}
WORST = dict.fromkeys(("dice", "iou", "precision", "recall", "cldice", "surface_dice", "ari"), 0)
WORST |= {"hd95": DIAGONAL, "assd": DIAGONAL}

# As the table in docs/metrics.md.
EMPTY = {
    "both": (UNDEFINED | NUMBERS | {"accuracy": 1, "foreground_predicted": 0, "foreground_labelled": 0}),
    "prediction": WORST
    | {"betti_0_error": 1, "betti_1_error": 1, "betti_matching_error": 2, "foreground_predicted": 0, "voi_merge": 0},
    "ground truth": WORST
    | {"betti_0_error": 1, "betti_1_error": 1, "betti_matching_error": 2, "foreground_labelled": 0, "voi_split": 0},
    "all ignored": UNDEFINED
    | NUMBERS
    | dict.fromkeys(("accuracy", "foreground_predicted", "foreground_labelled"), NAN),
}


@pytest.mark.parametrize("empty", EMPTY)
def test_empty_masks_have_the_documented_values(empty):
    ring = np.zeros((9, 11, 13), bool)
    ring[4, 3:8, 3:8] = True
    ring[4, 5, 5] = False
    nothing = np.zeros_like(ring)
    prediction = ring if empty in ("ground truth", "all ignored") else nothing
    truth = ring if empty in ("prediction", "all ignored") else nothing
    ignore = ~nothing if empty == "all ignored" else None
    expected = EMPTY[empty]
    found = scores(prediction, truth, expected, spacing_mm=SPACING, ignore=ignore)
    assert found == pytest.approx(expected, nan_ok=True)


def test_only_what_is_asked_for_is_computed(monkeypatch):
    monkeypatch.setattr("nnunet_topo.metrics.scores.surface_errors", None)
    prediction, truth = masks()
    assert set(scores(prediction, truth, ["Dice", "euler_error"], spacing_mm=SPACING)) == {"dice", "euler_error"}


def test_images_are_scored_in_two_dimensions():
    prediction, truth = (mask[4] for mask in masks())
    found = scores(prediction, truth, METRICS.keys() - OF_VOLUMES, spacing_mm=SPACING[1:], connectivity=4)
    assert found["betti_1_predicted"] == betti_numbers(prediction, connectivity=4)[1]
    assert found["surface_dice"] == surface_dice(prediction, truth, spacing_mm=SPACING[1:], tolerance_mm=2.0)


def test_an_unknown_metric_or_connectivity_is_refused():
    prediction, truth = masks()
    with pytest.raises(ConfigError, match="metric: expected one of"):
        scores(prediction, truth, ["dicee"], spacing_mm=SPACING)
    with pytest.raises(ConfigError, match="connectivity: expected 26 or 6 for a 3-D mask, got 8"):
        scores(prediction, truth, ["betti_0_error"], spacing_mm=SPACING, connectivity=8)
