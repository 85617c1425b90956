"""Order, medians and differences of a report's scores, and which case it shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from label_folders import Folders

from nnunet_topo.errors import DataError
from nnunet_topo.evaluation import report as report_module
from nnunet_topo.evaluation.evaluate import evaluate_folders, write_evaluation
from nnunet_topo.evaluation.report import write_report
from nnunet_topo.evaluation.report_scores import Predictions, Row, differences, rows_worst_first
from nnunet_topo.evaluation.report_tables import foreground_ratio


def predictions(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Predictions:
    return Predictions(
        "", Path(), Path(), {case: {k: dict(v) for k, v in labels.items()} for case, labels in scores.items()}, ()
    )


def rows(scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Row]:
    return rows_worst_first([predictions(scores)])


def test_a_case_without_anything_to_find_is_not_the_worst() -> None:
    found = rows({"empty": {"1": {"Dice": float("nan")}}, "bad": {"1": {"Dice": 0.2}}, "good": {"1": {"Dice": 0.9}}})
    assert [row.case for row in found] == ["bad", "good", "empty"]


def test_the_median_case_lies_between_the_two_in_the_middle() -> None:
    shares = {"foreground_labelled": 0.1}
    found = rows({name: {"1": {**shares, "foreground_predicted": value}} for name, value in (("a", 0.05), ("b", 0.2))})
    assert foreground_ratio(found) == pytest.approx(1.25)


def test_a_label_with_a_value_in_one_run_alone_is_left_out() -> None:
    mine = rows({"a": {"1": {"Dice": 0.6}, "2": {"Dice": float("nan")}}})
    other = rows({"a": {"1": {"Dice": 0.5}, "2": {"Dice": 0.0}}})
    (row,) = differences(mine, other)
    assert (row.metric, row.result, row.baseline) == ("dice", 0.6, 0.5)


def errors_section(page: Path) -> str:
    found = re.search(r'<section id="errors">.*?</section>', page.read_text(encoding="utf-8"), re.DOTALL)
    return re.sub(r"<[^>]+>", " ", found[0]) if found else ""


def two_labels(root: Path) -> Folders:
    """Label 1 is perfect in `a`, where label 2 is missing; both are a little too short in `b`."""
    folders = Folders(root, {"background": 0, "first": 1, "second": 2})
    truth = np.zeros((4, 12, 12), np.uint8)
    truth[1:3, 1:5, 1:11], truth[1:3, 7:11, 1:11] = 1, 2
    folders.add("a", truth, np.where(truth == 2, 0, truth))
    shorter = truth.copy()
    shorter[:, :, 9:] = 0
    folders.add("b", truth, shorter)
    return folders


def test_the_case_with_the_worst_label_is_shown(tmp_path: Path) -> None:
    folders = two_labels(tmp_path / "data")
    output = tmp_path / "page.html"
    write_report(folders.predictions, output, ground_truth=folders.truth, cases=1, processes=1, progress=False)
    section = errors_section(output)
    assert "1. a" in section
    assert "second" in section
    assert "1 missing component" in section


def test_a_damaged_case_of_the_other_run_costs_only_its_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = two_labels(tmp_path / "data")
    load, calls = report_module.load_volumes, []

    def fails_the_second_time(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise DataError("broken")
        return load(*arguments)

    monkeypatch.setattr(report_module, "load_volumes", fails_the_second_time)
    output = tmp_path / "page.html"
    found = write_report(
        folders.predictions, output, against=folders.predictions, ground_truth=folders.truth, cases=1, processes=1,
        progress=False,
    )  # fmt: skip
    assert "the other run, no pictures of a: broken" in found.notes
    assert "1. a" in errors_section(output)


def test_pictures_leave_out_what_the_scores_left_out(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", None)
    truth = np.zeros((6, 12, 12), np.uint8)
    truth[2:4, 2:10, 1:5], truth[:, :, 8:] = 1, 2
    prediction = (truth == 1).astype(np.uint8)
    prediction[1:3, 5:7, 9:11] = 1
    folders.add("a", truth, prediction)
    evaluation = evaluate_folders(
        folders.truth, folders.predictions, preset="vesuvius", metrics=["betti_0_error"], processes=1, progress=False
    )
    write_evaluation(evaluation, folders.predictions / "summary_topo.json")
    output = tmp_path / "page.html"
    write_report(folders.predictions, output, ground_truth=folders.truth, cases=1, processes=1, progress=False)
    assert "No error of topology" in errors_section(output)
