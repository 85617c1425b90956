"""The controls decide on known series as the committed tables say."""

from __future__ import annotations

import pytest
from replay_harness import TABLES, FakeRun
from replay_scenarios import LOSS, losses, recipe, scenarios, tables

from nnunet_topo.control.action import RestoreBest, StopTraining
from nnunet_topo.recipe import load_recipe

TEXTS = tables()


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_decisions_are_those_of_the_table(name):
    committed = (TABLES / f"{name}.md").read_text(encoding="utf-8")
    assert TEXTS[name] == committed, "write the tables anew with: python tests/replay/replay_harness.py"


def test_there_is_no_other_table():
    assert {path.stem for path in TABLES.glob("*.md")} == set(TEXTS)


def decided(name):
    run = FakeRun(scenarios()[name].recipe)
    run.run(scenarios()[name].monitors, scenarios()[name].epochs)
    return run


def test_the_diarys_endless_rollback_is_one():
    assert decided("phase_jump").restored == [19]
    assert decided("diary_degradation").restored == [10]


@pytest.mark.parametrize("name", ["diary_v3", "diary_v5", "diary_v6", "diary_v8", "diary_v9", "diary_aggressive"])
def test_early_stopping_fires_where_the_diarys_could_not(name):
    run = decided(name)
    assert run.stopped
    assert isinstance(run.actions[-1][1], StopTraining)


def test_a_phase_that_only_changes_the_weights_decides_nothing():
    assert decided("phase_jump_of_the_weighted_loss").actions == []


def test_what_hurts_is_undone_and_the_run_goes_on_as_before():
    for name in ("boost_that_hurts", "boost_that_ends_in_a_rollback"):
        run = decided(name)
        assert run.controls["learning_rate"].multiplier == 1.0
        assert run.controls["plateau"].failed == ["learning_rate"]
        assert run.controls["plateau"].interventions == 1


def test_rolled_back_epochs_leave_the_average():
    settings = {"averaging": {"kind": "swa", "start": 0}, "rollback": {"degradation_epochs": 2}}
    run = FakeRun(recipe(12, **settings))
    run.run(losses([0.5, 0.4, 0.43, 0.43, 0.39, 0.38, 0.37, 0.36, 0.35, 0.34, 0.33, 0.32]), 12)
    assert run.restored == [1]
    assert run.averaged == (0, 1, 4, 5, 6, 7, 8, 9, 10, 11)


@pytest.mark.parametrize("epoch", range(0, 70, 7))
def test_a_resumed_run_decides_the_same(epoch):
    for scenario in scenarios().values():
        if scenario.monitors.__qualname__.startswith("answering"):
            continue  # its loss has a memory of its own, which no checkpoint keeps
        straight, broken = FakeRun(scenario.recipe), FakeRun(scenario.recipe)
        expected = straight.run(scenario.monitors, scenario.epochs)
        rows = broken.run(scenario.monitors, min(epoch, scenario.epochs))
        broken.resume(broken.states())
        rows += broken.run(scenario.monitors, scenario.epochs)
        assert str(rows) == str(expected)
        assert broken.states() == straight.states()


def test_a_stopped_run_stays_stopped_when_it_resumes():
    run = decided("diary_v8")
    epoch = run.epoch
    run.resume(run.states())
    assert run.controls["early_stopping"].stopped
    assert run.controls["early_stopping"].end_epoch(epoch, {"monitors": {LOSS: 0.9}}) == []


def test_a_rollback_in_the_first_epoch_is_impossible():
    run = FakeRun(load_recipe("v9_progressive"))
    run.run(lambda _: {LOSS: 1e30}, 1)
    assert not any(isinstance(action, RestoreBest) for _, action in run.actions)
