import pytest

from nnunet_topo.control.action import RestoreBest
from nnunet_topo.control.monitor import BestControl
from nnunet_topo.control.rollback import RollbackControl


@pytest.fixture
def events(recipe, feed):
    def run(values, *, phases=None, name="reference_loss", **settings):
        ours = recipe(phases=phases, rollback=settings, monitor={"rollback": name})
        kept = BestControl(name)
        found = feed(RollbackControl(ours, kept), values, before=[kept], name=name)
        return [(epoch, event.what) for epoch, event in found]

    return run


def test_catastrophic_is_the_diarys_fraction(events):
    assert events([0.4, 0.4 * 1.149, 0.41]) == []
    assert events([0.4, 0.4 * 1.151]) == [(1, "rollback")]
    assert events([0.4, 4.0], catastrophic=None) == []


def test_sustained_needs_epochs_in_a_row_beyond_the_tolerance(events):
    assert events([0.4, 0.41, 0.41, 0.41]) == [(3, "rollback")]
    assert events([0.4, 0.41, 0.41, 0.405, 0.41, 0.41]) == []
    assert events([0.4] + [0.407] * 50) == []  # noise below 2 %
    assert events([0.4] + [0.401] * 3, tolerance=0) == [(3, "rollback")]
    assert events([0.4] + [0.41] * 50, degradation_epochs=None) == []


def test_gaps_neither_count_nor_forgive(events):
    assert events([0.4, 0.41, None, float("nan"), 0.41, float("inf"), 0.41]) == [(6, "rollback")]


def test_no_best_serves_twice(events):
    found = events([0.4] + [0.6] * 60)
    assert found == [(1, "rollback"), (2, "rollback_refused")]


def test_again_after_an_improvement_until_the_limit(events):
    found = events([0.4, 0.6, 0.39, 0.6, 0.6, 0.38, 0.6, 0.37, 0.6, 0.6], max_rollbacks=3)
    assert found == [
        (1, "rollback"),
        (3, "rollback"),
        (4, "rollback_refused"),
        (6, "rollback"),
        (8, "rollback_refused"),
    ]


def test_a_phase_resets_the_count_and_not_the_best(events):
    phases = [{"from": 0, "weights": {"dice": 1}}, {"from": 3, "weights": {"ce": 1}}]
    assert events([0.4, 0.41, 0.41, 0.41, 0.41, 0.41], phases=phases) == [(5, "rollback")]
    assert events([0.4, 0.4, 0.4, 0.6], phases=phases) == [(3, "rollback")]


def test_dice_degrades_downwards(events):
    assert events([0.8, 0.9, 0.7], name="pseudo_dice") == [(2, "rollback")]
    assert events([0.5, 0.6, 0.9], name="pseudo_dice") == []


def test_negative_and_vanishing_best_values(events):
    assert events([-0.8, -0.7]) == []
    assert events([-0.8, -0.67]) == [(1, "rollback")]
    assert events([0.0, 0.014]) == []  # 15 % of 0.1, as nothing is a fraction of 0
    assert events([0.0, 0.016]) == [(1, "rollback")]


def test_the_action_names_the_epoch_and_the_momentum(recipe, feed):
    for reset in (True, False):
        ours, kept = recipe(rollback={"reset_momentum": reset}), BestControl("reference_loss")
        [(_, event)] = feed(RollbackControl(ours, kept), [0.5, 0.4, 0.9], before=[kept])
        assert event.action == RestoreBest(reset, 1)
        assert (event.before, event.after) == (0.9, 0.4)
