"""Charts: what they draw, what they leave out, and that they stay small."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from nnunet_topo.evaluation.report_charts import (
    HEIGHT,
    WIDTH,
    Curve,
    Frame,
    line_chart,
    scatter_chart,
    share_chart,
    stacked_shares,
)


def points(chart, color):
    path = next(
        path
        for path in ElementTree.fromstring(chart).iter("path")
        if path.get("class") == "curve" and path.get("stroke") == color
    )
    return [tuple(map(float, place)) for place in re.findall(r"[ML]([\d.-]+),([\d.-]+)", path.get("d"))]


def test_a_curve_goes_where_its_values_are():
    values = np.array([1.0, 2.0, np.nan, 4.0])
    chart = line_chart("Loss <x>", "note", Frame(3, 4, [0, 5], [(4, "a & b")]), [Curve("train", "#123456", values)])
    root = ElementTree.fromstring(chart)
    drawn = points(chart, "#123456")
    assert len(drawn) == 3
    assert drawn[0][0] < drawn[1][0] < drawn[2][0] < WIDTH
    assert HEIGHT > drawn[0][1] > drawn[1][1] > drawn[2][1] > 0
    assert "M" in re.findall(r"[ML]", root.find(".//path[@class='curve']").get("d"))[2]  # a gap, no line across it
    assert root.find(".//path[@class='event']/title").text == "a & b"
    assert len(root.findall(".//rect[@class='phase']")) == 1
    assert root.find("svg").get("aria-label") == "Loss <x> over the epochs: train ends at 4"


def test_nothing_to_draw_is_no_chart():
    nothing = np.full(5, np.nan)
    assert line_chart("a", "", Frame(0, 5), [Curve("b", "red", nothing)]) == ""
    assert share_chart("a", "", Frame(0, 5), [Curve("b", "red", nothing)]) == ""
    assert scatter_chart("a", "", []) == ""


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_one_epoch_and_constant_values(value):
    chart = line_chart("a", "", Frame(0, 1), [Curve("b", "red", np.array([value]))])
    assert "nan" not in chart
    assert len(points(chart, "red")) == 1


def test_an_exploded_epoch_does_not_flatten_the_others():
    values = np.concatenate([np.linspace(1, 0.5, 99), [1e9]])
    chart = line_chart("a", "unit", Frame(0, 100), [Curve("b", "red", values)])
    assert "1 value beyond the axis" in chart
    heights = [y for _, y in points(chart, "red")]
    assert max(heights) - min(heights[:-1]) > HEIGHT / 2


def test_long_runs_keep_their_peaks_and_stay_small():
    values = np.zeros(5000)
    values[1234], values[4321] = 1.0, -0.6
    values[::7] += 0.3
    chart = line_chart("a", "", Frame(0, 5000), [Curve("b", "red", values)])
    assert len(chart) < 20_000
    heights = [y for _, y in points(chart, "red")]
    assert min(heights) < np.sort(heights)[5] - 20
    assert max(heights) > np.sort(heights)[-5] + 20


def test_shares_of_terms():
    shares = stacked_shares([np.array([3.0, -1.0, np.nan]), np.array([1.0, np.nan, np.nan])])
    np.testing.assert_allclose(shares, [[0.75, 1.0, np.nan], [0.25, 0.0, np.nan]])
    frame = Frame(0, 3)
    chart = share_chart("a", "", frame, [Curve("x", "red", np.array([3.0, 3, 3])), Curve("y", "blue", np.ones(3))])
    root = ElementTree.fromstring(chart)
    assert root.find("svg").get("aria-label").endswith("x 75 %; y 25 %")
    tops = [min(float(p.split(",")[1]) for p in polygon.get("points").split()) for polygon in root.iter("polygon")]
    assert tops[1] < tops[0]


def test_predicted_against_labelled():
    chart = scatter_chart("a", "", [(0.1, 0.2, "one"), (0.2, 0.1, "two <3>")])
    first, second = ElementTree.fromstring(chart).iter("circle")
    assert float(first.get("cx")) < float(second.get("cx"))
    assert float(first.get("cy")) < float(second.get("cy"))
    assert second.find("title").text == "two <3>: labelled 20.00 %, predicted 10.00 %"
