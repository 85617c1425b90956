"""Faults that lose nothing: killed, signalled, truncated, malicious, forgotten. docs/faults.md is made from them."""

from __future__ import annotations

import fault_scenarios as scenarios
import pytest
from fault_bench import Bench
from fault_child import Disturbance

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("index", range(5))
def test_kill_at_a_random_moment(bench: Bench, index: int) -> None:
    scenarios.kill(bench, f"kill {index}", *scenarios.kill_moments(bench, 5, seed=2)[index])


def test_kill_between_the_two_renames_of_a_latest_checkpoint(bench: Bench) -> None:
    save = scenarios.save_number(bench, "latest", 1)
    row = scenarios.kill(bench, "between", "", Disturbance("rename", save=save, when="between"))
    assert {"latest.pth.tmp", "previous"} <= set(row.left.split(", "))
    assert "latest" not in row.left.split(", ")


@pytest.mark.parametrize(("name", "step"), [("SIGTERM", 1), ("SIGUSR1", 7), ("SIGTERM", 8)])
def test_signal(bench: Bench, name: str, step: int) -> None:
    scenarios.stop(bench, f"{name} {step}", name, step)


def test_signal_to_workers_too(bench: Bench) -> None:
    scenarios.stop_with_workers(bench)


@pytest.mark.parametrize("name", ["latest", "best"])
def test_truncated(bench: Bench, name: str) -> None:
    scenarios.damage(bench, [name], source=scenarios.interrupted(bench))


def test_truncated_final_and_flipped_bits(bench: Bench) -> None:
    scenarios.damage(bench, ["final"], source="whole")
    scenarios.damage(bench, ["latest"], source=scenarios.interrupted(bench), flip=True)


def test_nothing_left(bench: Bench) -> None:
    scenarios.nothing_left(bench)


def test_forgotten_and_unfulfilled_c(bench: Bench) -> None:
    scenarios.forgotten_flag(bench)
    scenarios.no_checkpoint(bench)


def test_other_recipe(bench: Bench) -> None:
    scenarios.other_recipe(bench)


def test_malicious_pickle(bench: Bench) -> None:
    scenarios.malicious(bench)


def test_disk_full(bench: Bench) -> None:
    scenarios.disk_full(bench)


def test_not_finite(bench: Bench) -> None:
    scenarios.not_finite(bench)


def test_the_blur_path_would_be_noticed(bench: Bench) -> None:
    """What a resumed training must keep makes a difference: without it the tests above could not fail for it."""
    other = bench.train("other clock", clock="slowing")
    assert other.status == 0, other.said
    with pytest.raises(AssertionError):
        bench.check_end(other)
