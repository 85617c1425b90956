"""Guards, ties, directions and undefined values in the choice of a candidate."""

from __future__ import annotations

import math
from typing import Any

import pytest

from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.evaluation.judge import Judge, parse_guard, parse_judge


def summary(**means: float) -> dict[str, Any]:
    keys = {"dice": "Dice"}
    return {"foreground_mean": {keys.get(name, name): value for name, value in means.items()}, "mean": {}}


def choose(judge: Judge, **candidates: dict[str, Any]) -> tuple[str, dict[str, list[str]]]:
    return judge.choose(candidates, judge.limits(list(candidates.values())))


def test_higher_or_lower_wins_as_the_metric_wants() -> None:
    candidates = {"a": summary(dice=0.8, hd95=3.0), "b": summary(dice=0.9, hd95=5.0)}
    assert choose(parse_judge("dice"), **candidates) == ("b", {})
    assert choose(parse_judge("hd95"), **candidates) == ("a", {})


def test_the_first_wins_a_tie() -> None:
    assert choose(parse_judge("dice"), single=summary(dice=0.8), ensemble=summary(dice=0.8))[0] == "single"


def test_a_guard_is_relative_to_the_best_of_all_candidates() -> None:
    judge = parse_judge("cldice", ["dice:-0.005"])
    candidates = {
        "topological": summary(cldice=0.9, dice=0.800),
        "middle": summary(cldice=0.85, dice=0.806),
        "voxelwise": summary(cldice=0.7, dice=0.810),
    }
    best, excluded = choose(judge, **candidates)
    assert best == "middle"
    assert list(excluded) == ["topological"]
    assert "dice 0.8000 is below 0.8050 (dice:-0.005)" in excluded["topological"]


def test_exactly_the_allowed_change_is_let_through() -> None:
    judge = parse_judge("cldice", ["dice:-0.1"])
    # 0.7 - 0.1 is a little more than 0.6 in binary.
    assert choose(judge, a=summary(cldice=0.9, dice=0.6), b=summary(cldice=0.8, dice=0.7))[0] == "a"


def test_a_guard_of_zero_admits_only_the_best() -> None:
    judge = parse_judge("cldice", ["dice:0"])
    assert choose(judge, a=summary(cldice=0.9, dice=0.6), b=summary(cldice=0.8, dice=0.7))[0] == "b"


def test_a_guard_on_a_metric_of_which_less_is_better() -> None:
    judge = parse_judge("dice", ["hd95:+2"])
    best, excluded = choose(
        judge, a=summary(dice=0.9, hd95=7.5), b=summary(dice=0.8, hd95=6.9), c=summary(dice=0.1, hd95=5.0)
    )
    assert best == "b"
    assert "above 7.0000" in excluded["a"][0]


def test_several_guards_must_all_be_kept() -> None:
    judge = parse_judge("cldice", ["dice:-0.05", "hd95:+1"])
    best, excluded = choose(
        judge,
        a=summary(cldice=0.9, dice=0.7, hd95=1.0),
        b=summary(cldice=0.8, dice=0.8, hd95=9.0),
        c=summary(cldice=0.7, dice=0.78, hd95=1.5),
    )
    assert (best, sorted(excluded)) == ("c", ["a", "b"])


def test_no_candidate_within_all_guards_is_an_error_that_says_why() -> None:
    judge = parse_judge("cldice", ["dice:0", "hd95:0"])
    with pytest.raises(DataError, match=r"a: hd95.*b: dice"):
        choose(judge, a=summary(cldice=0.9, dice=0.9, hd95=2.0), b=summary(cldice=0.8, dice=0.7, hd95=1.0))


def test_an_undefined_value_cannot_win_or_pass_a_guard() -> None:
    nan = math.nan
    assert choose(parse_judge("dice"), a=summary(dice=nan), b=summary(dice=0.1))[0] == "b"
    judge = parse_judge("cldice", ["dice:-0.5"])
    assert choose(judge, a=summary(cldice=0.9, dice=nan), b=summary(cldice=0.1, dice=0.7))[0] == "b"
    with pytest.raises(DataError, match="dice: expected a value"):
        choose(parse_judge("dice"), a=summary(dice=nan), b=summary(dice=nan))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dice", "METRIC:CHANGE"),
        ("dice:", "METRIC:CHANGE"),
        ("dice:x", "METRIC:CHANGE"),
        ("dice:nan", "METRIC:CHANGE"),
        ("dice:+0.005", "dice:-0.005"),
        ("hd95:-2", r"hd95:\+2"),
        ("dcie:-0.1", "dice"),
        ("n_pred:-1", "better or worse"),
    ],
)
def test_a_bad_guard_is_refused_with_a_good_one(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_guard(text)


def test_a_metric_without_a_direction_cannot_rank() -> None:
    with pytest.raises(ConfigError, match="better or worse"):
        parse_judge("foreground_predicted")
