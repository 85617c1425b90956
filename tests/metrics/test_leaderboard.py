"""The competition's score against a slow one from its definition (slow_leaderboard.py)."""

import json
import multiprocessing
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from nnunet_topo.errors import ConfigError, ShapeError
from nnunet_topo.metrics.leaderboard import LeaderboardScore, leaderboard_score, topo_score

sys.path.insert(0, str(Path(__file__).parent))

import slow_leaderboard

REFERENCE = os.environ.get("NNUNET_TOPO_REFERENCE")


def assert_equal(found: LeaderboardScore, expected: dict) -> None:
    assert {str(k): list(numbers) for k, numbers in found.counts.items()} == expected["counts"]
    for name in ("score", "topo_score", "surface_dice", "voi_score", "voi_split", "voi_merge"):
        assert getattr(found, name) == pytest.approx(expected[name], abs=1e-9), name


@pytest.mark.parametrize("case", json.loads(slow_leaderboard.CASES.read_text()), ids=lambda case: str(case["shape"]))
def test_equals_the_stored_scores(case):
    prediction, truth = slow_leaderboard.make_case(tuple(case["shape"]), case["seed"])
    assert [zlib.crc32(np.ascontiguousarray(mask).tobytes()) for mask in (prediction, truth)] == case["crc32"]
    assert_equal(leaderboard_score(prediction, truth), case)


def test_equals_the_slow_score_for_other_shapes_spacings_and_parameters():
    generator = np.random.default_rng(0)
    for index, shape in enumerate([(9, 9, 9), (1, 9, 8), (7, 1, 1), (2, 3, 12), (1, 1, 1), (11, 6, 5), (3, 12, 7)]):
        truth = generator.random(shape) < 0.6
        prediction = truth ^ (generator.random(shape) < 0.2)
        for tolerance, alpha, spacing in ((2.0, 0.3, (1.0, 1.0, 1.0)), (1.5, 1.0, (0.5, 1.0, 3.0))):
            found = leaderboard_score(prediction, truth, tolerance=tolerance, voi_alpha=alpha, spacing=spacing)
            assert_equal(found, slow_leaderboard.score(prediction, truth, tolerance, alpha, spacing)), index


@pytest.mark.skipif(
    REFERENCE is None, reason="NNUNET_TOPO_REFERENCE names no folder with the official scorer's answers"
)
def test_equals_the_official_scorer():
    sys.path.insert(0, REFERENCE)
    import topometrics_cases

    stored = json.loads(Path(REFERENCE, "topometrics_64.json").read_text())["results"]
    for case in stored:
        labels = topometrics_cases.make_gt(case["kind"], case["n"])
        prediction, labels = topometrics_cases.make_case(case["case"], labels, case["n"])
        expected = {**case, "topo_score": case["toposcore"], "counts": case["counts_m_p_g"]}
        assert_equal(leaderboard_score(prediction, labels), expected)
    assert len(stored) > 40


def labels_and_prediction(shape=(10, 12, 11)):
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, shape)
    return labels, (labels == 1) ^ (generator.random(shape) < 0.2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint64, np.float16, np.float32, np.float64])
def test_every_type_of_number_means_the_same(dtype):
    labels, prediction = labels_and_prediction()
    expected = leaderboard_score(prediction, labels)
    assert leaderboard_score(prediction.astype(dtype), labels.astype(dtype)) == expected
    assert leaderboard_score(prediction.astype(dtype).tolist(), np.asfortranarray(labels)) == expected


def test_ignored_voxels_are_background_in_both():
    labels, prediction = labels_and_prediction()
    ignored = labels == 2
    cleared = leaderboard_score(prediction & ~ignored, labels == 1, ignore_label=None)
    assert leaderboard_score(prediction, labels) == cleared
    assert leaderboard_score(prediction ^ ignored, labels) == cleared
    assert leaderboard_score(prediction, np.where(ignored, 255, labels), ignore_label=255) == cleared
    assert leaderboard_score(prediction, labels, ignore_label=None) == leaderboard_score(
        prediction, labels > 0, ignore_label=None
    )
    assert leaderboard_score(prediction, labels, ignore_label=None) != cleared


def test_everything_but_zero_and_nan_is_foreground():
    labels, prediction = labels_and_prediction()
    expected = leaderboard_score(prediction, labels)
    values = np.where(prediction, 0.4, 0.0)
    values[prediction & (labels == 1)] = -np.inf
    values[~prediction] = np.nan
    assert leaderboard_score(values, np.where(labels == 0, np.nan, labels)) == expected
    assert leaderboard_score(np.where(prediction, 255, 0), labels) == expected
    assert leaderboard_score(np.where(prediction, 2, 0), labels) == expected  # 2 is ignored in the labels alone


def test_empty_volumes():
    empty, box = np.zeros((2, 8, 8, 8), bool)
    box[2:6, 2:6, 2:6] = True
    nothing = {k: (0, 0, 0) for k in range(3)}
    perfect = LeaderboardScore(1.0, 1.0, 1.0, 1.0, 0.0, 0.0, nothing)
    assert leaderboard_score(empty, empty) == perfect
    assert leaderboard_score(box, np.full(box.shape, 2)) == perfect
    # A single component cut by the octants is one in each: no feature is missed, and its variation is 0 bits.
    for prediction, truth in ((empty, box), (box, empty)):
        assert leaderboard_score(prediction, truth) == LeaderboardScore(0.65, 1.0, 0.0, 1.0, 0.0, 0.0, nothing)


def test_octants_do_not_see_across_their_faces():
    truth = np.zeros((12, 12, 12), bool)
    truth[:, :, 2] = True
    prediction = truth.copy()
    prediction[4:8, 4:8, 2] = False  # a hole around the corner of four octants
    assert leaderboard_score(prediction, truth).topo_score == 1.0
    prediction = truth.copy()
    prediction[2:4, 2:4, 2] = False
    assert leaderboard_score(prediction, truth).counts[1] == (0, 1, 0)
    assert leaderboard_score(prediction, truth).topo_score == pytest.approx(0.5 / 1.5)


def test_the_first_half_of_an_odd_size_is_the_larger_one():
    first, second = np.zeros((2, 5, 1, 1), bool)
    first[[0, 2]] = second[[2, 4]] = True
    assert leaderboard_score(first, first).counts[0] == (1, 1, 1)
    assert leaderboard_score(second, second).counts[0] == (0, 0, 0)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({0: (0, 0, 0), 1: (0, 0, 0), 2: (0, 0, 0)}, 1.0),
        ({0: (2, 3, 5), 1: (0, 0, 0), 2: (0, 0, 0)}, 0.5),
        ({0: (0, 2, 0), 1: (0, 0, 0), 2: (0, 0, 0)}, 0.2),
        ({0: (1, 1, 1), 1: (0, 0, 4), 2: (0, 0, 0)}, 0.34 / 0.67),
        ({0: (1, 1, 1), 1: (3, 4, 4), 2: (0, 1, 0)}, 0.34 + 0.33 * 0.75 + 0.33 / 3),
    ],
)
def test_topo_score(counts, expected):
    assert topo_score(counts) == pytest.approx(expected, abs=1e-12)


def _score_in_worker(volumes):
    return leaderboard_score(*volumes)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_scores_inside_daemonic_workers(method):
    labels, prediction = labels_and_prediction((6, 7, 8))
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(_score_in_worker, [(prediction, labels)] * 2)
    assert found == [leaderboard_score(prediction, labels)] * 2


@pytest.mark.parametrize(
    ("prediction", "labels", "message"),
    [
        (np.zeros((4, 4)), np.zeros((4, 4)), r"prediction: expected a 3-D array .* got shape \(4, 4\)"),
        (np.zeros((1, 4, 4, 4)), np.zeros((4, 4, 4)), "take the axis of channels away"),
        (np.zeros((4, 4, 4)), np.zeros((4, 5, 4)), r"ground_truth: expected the shape \(4, 4, 4\).*\(4, 5, 4\)"),
        (np.zeros((4, 0, 4)), np.zeros((4, 0, 4)), "at least one voxel"),
        (np.zeros((4, 4, 4), complex), np.zeros((4, 4, 4)), "of complex128"),
        (np.zeros((4, 4, 4)), np.full((4, 4, 4), "a"), "ground_truth: expected a 3-D array"),
    ],
)
def test_wrong_volumes_are_refused_by_name(prediction, labels, message):
    with pytest.raises(ShapeError, match=message):
        leaderboard_score(prediction, labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spacing": (1.0, 1.0)}, "spacing: expected 3 numbers > 0"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing: expected 3 numbers > 0"),
        ({"tolerance": -1.0}, "tolerance: expected a number >= 0, got -1.0"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"voi_alpha": -0.1}, "voi_alpha: expected a number >= 0"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings, message):
    with pytest.raises(ConfigError, match=message):
        leaderboard_score(np.zeros((4, 4, 4)), np.zeros((4, 4, 4)), **settings)
