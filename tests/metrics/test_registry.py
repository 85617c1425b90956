"""Names, JSON keys, directions and presets of the metrics."""

import pytest

from nnunet_topo.errors import ConfigError
from nnunet_topo.metrics.registry import DEFAULT_METRICS, METRICS, NNUNET_METRICS, PRESETS, metric_named


def test_nnunets_own_keep_its_keys_and_all_others_are_their_names():
    assert [METRICS[name].key for name in NNUNET_METRICS] == ["Dice", "IoU", "TP", "FP", "FN", "TN", "n_pred", "n_ref"]
    assert all(metric.key == name for name, metric in METRICS.items() if name not in NNUNET_METRICS)
    assert all(metric.name == name for name, metric in METRICS.items())


@pytest.mark.parametrize("name", ["dice", "cldice", "surface_dice", "ari", "leaderboard", "topo_score", "voi_score"])
def test_scores_are_better_when_higher(name):
    assert METRICS[name].higher_is_better is True


@pytest.mark.parametrize("name", ["betti_1_error", "euler_error", "betti_matching_error", "hd95", "assd", "voi_merge"])
def test_errors_are_better_when_lower(name):
    assert METRICS[name].higher_is_better is False


@pytest.mark.parametrize("name", ["tp", "n_ref", "foreground_predicted", "foreground_labelled", "betti_0_predicted"])
def test_counts_and_shares_have_no_direction(name):
    assert METRICS[name].higher_is_better is None


def test_sets_of_metrics_exist():
    assert set(PRESETS) == {"vesuvius", "vessel", "volumetric"}
    for names in (*PRESETS.values(), DEFAULT_METRICS):
        assert set(names) <= set(METRICS)
        assert len(set(names)) == len(names)


def test_case_does_not_matter_and_a_typo_is_answered_with_the_nearest():
    assert metric_named(" Dice ") is METRICS["dice"]
    assert metric_named("N_PRED") is METRICS["n_pred"]
    with pytest.raises(ConfigError, match=r"got 'cl_dice'\. Did you mean 'cldice'"):
        metric_named("cl_dice")
