import math

import pytest

from nnunet_topo._recipe_sections import POLICIES
from nnunet_topo.control.policy import lr_scale


def scale(policy, norm, plateaus=1, interventions=0):
    return lr_scale(policy, gradient_norm=norm, plateaus=plateaus, interventions=interventions)


@pytest.mark.parametrize(
    ("policy", "norm", "plateaus", "expected"),
    [
        # numbers that the diary logged: 25 in the band from 0.01 to 0.1
        ("diary_0.3", 0.05, 2, 32.5),
        ("diary_0.85", 0.05, 5, 25 * 4.9),
        ("diary_0.85", 0.2, 1, 30.0),
        ("diary_0.15", 0.05, 15, 77.5),
        ("diary_0.15", 0.05, 16, 81.25),
        ("diary_0.15", 0.05, 19, 92.5),
        ("diary_0.3", 0.05, 10, 92.5),
        # every band, at its lower end
        ("diary_0.3", 0.0, 1, 35.0),
        ("diary_0.3", 0.0099, 1, 35.0),
        ("diary_0.3", 0.01, 1, 25.0),
        ("diary_0.3", 0.1, 1, 20.0),
        ("diary_0.3", 0.5, 1, 12.0),
        ("diary_0.3", 1e9, 1, 12.0),
        ("head", 0.005, 1, 2.0),
        ("head", 0.05, 1, 2.5),
        ("head", 0.3, 1, 2.0),
        ("head", 3.0, 1, 2.0),
        # 1 + 0.1 min(n - 1, 3): never past 1.3, so never past 3.25
        ("head", 0.05, 2, 2.75),
        ("head", 0.05, 4, 3.25),
        ("head", 0.05, 40, 3.25),
        ("conservative", 0.05, 1, 1.15),
        ("conservative", 7.0, 2, 1.3),
        ("conservative", None, 4, 1.6),
        ("conservative", 0.05, 400, 1.6),
    ],
)
def test_formulas(policy, norm, plateaus, expected):
    assert scale(policy, norm, plateaus) == pytest.approx(expected, rel=1e-12)


def test_head_takes_less_the_third_time_and_then_has_nothing_more():
    assert [scale("head", 0.05, 1, times) for times in range(5)] == [2.5, 2.5, pytest.approx(2.0), None, None]


@pytest.mark.parametrize("norm", [None, math.nan, math.inf])
def test_without_a_gradient_norm(norm):
    assert [scale("head", norm, 1, times) for times in range(3)] == [2.0, 1.5, pytest.approx(1.2 * 0.8)]
    assert scale("diary_0.3", norm, 2, 1) == pytest.approx(1.5 * 1.3)
    assert scale("diary_0.15", norm, 1, 9) == 1.2


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_of_a_recipe_has_a_formula_that_raises(policy):
    assert scale(policy, 0.3) > 1
