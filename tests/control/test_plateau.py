import pytest

from nnunet_topo.control.action import AddNoise, ResetMomentum, RestoreBest, ScaleLearningRate, ScaleLossWeights
from nnunet_topo.control.learning_rate import LearningRateControl
from nnunet_topo.control.monitor import BestControl
from nnunet_topo.control.plateau import PlateauControl

MIX = [{"from": 0, "weights": {"dice": 1.0, "focal": 0.5, "ce": 0.0}}]


@pytest.fixture
def play(recipe):
    """Events of a plateau control whose learning-rate actions are executed, and the control."""

    def run(values, *, phases=None, keep=True, norm=0.05, smoothing=1, **settings):
        settings = {"cooldown": 0, "policy": "head", **settings}
        ours = recipe(phases=phases or MIX, plateau=settings, monitor={"smoothing_epochs": smoothing}, seed=7)
        learning_rate, kept = LearningRateControl(ours), BestControl("reference_loss")
        control, found = PlateauControl(ours, learning_rate, kept if keep else None), []
        for epoch, value in enumerate(values):
            monitors = {"reference_loss": value, "gradient_norm": norm}
            record = {"monitors": monitors, "weights": {"dice": 1.0, "focal": 0.5, "ce": 0.0}}
            learning_rate.end_epoch(epoch, record)
            kept.end_epoch(epoch, record)
            for event in control.end_epoch(epoch, record):
                found.append((epoch, event))
                if isinstance(event.action, ScaleLearningRate):
                    learning_rate.scale(event.action.factor, event.action.decay_epochs)
        return found, control, learning_rate

    return run


def whats(found):
    return [(epoch, event.what) for epoch, event in found]


def test_patience_counts_epochs_without_an_improvement_of_the_threshold(play):
    assert whats(play([0.5] * 6)[0]) == [(5, "plateau")]
    assert whats(play([0.5, 0.499, 0.4985, 0.4981, 0.4981, 0.4981])[0]) == [(5, "plateau")]  # 0.0019 in all
    assert whats(play([0.5, 0.499, 0.498, 0.497, 0.496, 0.495])[0]) == []


def test_gaps_neither_improve_nor_degrade(play):
    assert whats(play([0.5, None, 0.5, float("nan"), 0.5, 0.5, float("inf"), 0.5, 0.5])[0]) == [(8, "plateau")]


def test_the_policy_sets_the_multiplier_within_the_cap(play):
    found, _, learning_rate = play([0.5] * 6)
    assert found[0][1].action == ScaleLearningRate(2.5, 20)
    assert (found[0][1].before, found[0][1].after, learning_rate.multiplier) == (1.0, 2.5, 2.5)
    assert "gradient norm 0.05" in found[0][1].why
    for policy in ("diary_0.3", "diary_0.85", "diary_0.15"):
        assert play([0.5] * 6, policy=policy)[2].multiplier == 5.0
    assert play([0.5] * 6, policy="diary_0.3", max_lr_scale=100.0)[2].multiplier == 25.0
    assert play([0.5] * 6, norm=None)[2].multiplier == 2.0


def test_limit_then_one_last_word(play):
    found, control, _ = play([0.5] * 80, max_interventions=2)
    assert [what for _, what in whats(found)] == [
        "plateau",
        "plateau_kept",
        "plateau",
        "plateau_kept",
        "plateau_exhausted",
    ]
    assert control.interventions == 2


def test_cooldown_and_verdict_hold_the_next_one_back(play):
    def interventions(**settings):
        return [epoch for epoch, what in whats(play([0.5] * 40, **settings)[0]) if what == "plateau"]

    assert interventions(patience=2, evaluation_epochs=1)[:2] == [2, 4]
    assert interventions(patience=2, evaluation_epochs=6)[:2] == [2, 8]
    assert interventions(patience=2, evaluation_epochs=1, cooldown=9)[:2] == [2, 12]


def test_worse_is_undone_exactly_and_never_repeated(play):
    found, control, learning_rate = play([0.5] * 6 + [0.6] * 60)
    assert whats(found) == [(5, "plateau"), (10, "plateau_undone"), (15, "plateau_exhausted")]
    assert learning_rate.multiplier == 1.0
    assert control.failed == ["learning_rate"]
    assert play([0.5] * 6 + [0.6] * 5, decay_epochs=None)[2].multiplier == 1.0
    assert play([0.5] * 6 + [0.6] * 5, decay_epochs=2)[2].multiplier == 1.0


def test_undoing_the_second_boost_leaves_the_first(play):
    _, _, learning_rate = play([0.5] * 11 + [0.6] * 5, decay_epochs=20)
    # the first was 2.5 ** (15 / 20) when the second raised it to 2.75; five epochs later that part is left
    assert learning_rate.multiplier == pytest.approx(2.5 ** (15 / 20 * 15 / 20))


def test_better_is_kept(play):
    found, control, learning_rate = play([0.5] * 6 + [0.45] * 5)
    assert whats(found) == [(5, "plateau"), (10, "plateau_kept")]
    assert "better" in found[1][1].why
    assert control.failed == []
    assert learning_rate.multiplier > 1


def test_actions_in_turn(play):
    found, _, _ = play([0.5] * 40, actions=["noise", "loss_weights", "momentum"], max_interventions=4)
    actions = [event.action for _, event in found if event.what == "plateau"]
    assert [type(action) for action in actions] == [AddNoise, ScaleLossWeights, ResetMomentum, AddNoise]
    assert actions[1].factors == {"focal": 0.5}
    assert (actions[0].std, actions[0].parameters) == (1e-3, ("decoder.stages.*", "decoder.seg_layers.*"))
    assert actions[0].seed != actions[3].seed


def test_a_failed_kind_is_left_out_of_the_turn(play):
    found, _, _ = play([0.5] * 6 + [0.6] * 30, actions=["learning_rate", "momentum"], max_interventions=4)
    actions = [type(event.action) for _, event in found if event.what == "plateau"]
    assert actions == [ScaleLearningRate, ResetMomentum, ResetMomentum, ResetMomentum]


def test_one_term_has_nothing_to_rebalance(recipe):
    ours = recipe(plateau={"actions": ["loss_weights"], "patience": 1})
    control, record = PlateauControl(ours, LearningRateControl(ours)), {"weights": {"dice": 1.0, "focal": 0.0}}
    events = [control.end_epoch(epoch, {**record, "monitors": {"reference_loss": 1.0}}) for epoch in range(2)]
    assert [event.what for event in events[1]] == ["plateau_noticed"]
    assert control.interventions == 0


@pytest.mark.parametrize("action", ["noise", "momentum"])
def test_only_the_kept_weights_undo_a_change_of_weights(play, action):
    values = [0.5] * 6 + [0.6] * 5
    [*_, (epoch, event)] = play(values, actions=[action])[0]
    assert (epoch, event.what, event.action) == (10, "plateau_undone", RestoreBest(True, 0))
    [*_, (_, event)] = play(values, actions=[action], keep=False)[0]
    assert (event.what, event.action) == ("plateau_undone", None)


def test_loss_weights_are_given_back(play):
    [*_, (_, event)] = play([0.5] * 6 + [0.6] * 5, actions=["loss_weights"])[0]
    assert event.action == ScaleLossWeights({"focal": 2.0})


def test_a_phase_restarts_the_count_and_drops_the_verdict(play):
    phases = [{"from": 0, "weights": {"dice": 1}}, {"from": 8, "weights": {"ce": 1, "dice": 1}}]
    found, _, _ = play([0.5] * 8 + [0.9] * 6, phases=phases)
    assert whats(found) == [(5, "plateau"), (13, "plateau")]


def test_head_has_nothing_after_its_third(play):
    found, _, _ = play([0.5] * 60, max_interventions=9)
    assert [event.what for _, event in found].count("plateau") == 3
    assert found[-1][1].what == "plateau_noticed"


def test_smoothing_hides_an_outlier(play):
    values = [0.5, 0.5, 0.5, 0.1, 0.5, 0.5, 0.5, 0.4, 0.4, 0.4]
    assert whats(play(values, smoothing=3)[0]) == [(5, "plateau")]
    assert whats(play(values, smoothing=1)[0]) == [(8, "plateau")]


def test_the_verdict_is_about_what_came_after_the_intervention(play):
    settings = {"smoothing": 3, "decay_epochs": None}
    silent = [None] * 5
    assert whats(play([0.5] * 6 + silent + [0.6] * 3, **settings)[0]) == [(5, "plateau"), (13, "plateau_undone")]
    assert whats(play([0.5] * 6 + silent + [0.6] * 2, **settings)[0]) == [(5, "plateau")]
    assert whats(play([0.5] * 6 + [0.6], evaluation_epochs=1, **settings)[0]) == [(5, "plateau"), (6, "plateau_undone")]
    assert "7 epochs after" not in play([0.5] * 6 + [0.6] * 6, **settings)[0][1][1].why
    assert "8 epochs after" in play([0.5] * 6 + silent + [0.6] * 3, **settings)[0][1][1].why


def test_a_verdict_that_is_due_survives_a_checkpoint(play, recipe):
    values = [0.5] * 6 + [None] * 3 + [0.6]
    _, control, _ = play(values, smoothing=3)
    again = PlateauControl(control.recipe, control.learning_rate)
    again.load_state_dict(control.state_dict())
    assert again.pending == control.pending
    assert again.pending["values"] == 1
