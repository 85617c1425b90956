"""Pairing, intervals and verdicts of two results."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.evaluation.compare import Comparison, MetricDifference, bootstrap_interval, compare_summaries


def write(folder: Path, cases: dict[str, dict], name: str = "summary.json", ending: str = ".nii.gz") -> Path:
    """A summary in nnU-Net's shape: `cases` holds {label: {key: value}} by case, or {key: value} for label 1."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [
        {
            "metrics": metrics if all(isinstance(value, dict) for value in metrics.values()) else {"1": metrics},
            "prediction_file": f"/somewhere/{folder.name}/{case}{ending}",
            "reference_file": f"/somewhere/labels/{case}{ending}",
        }
        for case, metrics in cases.items()
    ]
    (folder / name).write_text(json.dumps({"metric_per_case": entries, "mean": {}, "foreground_mean": {}}))
    return folder / name


def dice(values: list[float]) -> dict[str, dict]:
    return {f"case_{index}": {"Dice": value} for index, value in enumerate(values)}


def row(comparison: Comparison, metric: str, label: str = "foreground") -> MetricDifference:
    return next(entry for entry in comparison.differences if (entry.metric, entry.label) == (metric, label))


def test_a_difference_in_every_case_is_better(tmp_path: Path) -> None:
    first = write(tmp_path / "a", dice([0.5, 0.6, 0.7, 0.8, 0.4, 0.3, 0.9, 0.65]))
    second = write(tmp_path / "b", dice([0.52, 0.64, 0.71, 0.83, 0.45, 0.31, 0.92, 0.66]))
    found = row(compare_summaries(first, second), "dice")
    assert found.difference == pytest.approx(np.mean([0.02, 0.04, 0.01, 0.03, 0.05, 0.01, 0.02, 0.01]))
    assert (found.wins, found.losses, found.ties, found.cases) == (8, 0, 0, 8)
    assert found.baseline == pytest.approx(np.mean([0.5, 0.6, 0.7, 0.8, 0.4, 0.3, 0.9, 0.65]))
    assert found.result - found.baseline == pytest.approx(found.difference)
    assert 0.01 <= found.interval[0] < found.difference < found.interval[1] <= 0.05
    assert found.verdict == "better"


def test_swapping_the_results_mirrors_everything(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    first = write(tmp_path / "a", dice(list(rng.uniform(0.2, 0.9, 20))))
    second = write(tmp_path / "b", dice(list(rng.uniform(0.2, 0.9, 20))))
    there = row(compare_summaries(first, second), "dice")
    back = row(compare_summaries(second, first), "dice")
    assert there.difference == pytest.approx(-back.difference)
    assert there.interval == pytest.approx([-end for end in reversed(back.interval)], abs=0.01)
    assert (there.wins, there.losses) == (back.losses, back.wins)


def test_lower_is_better_where_the_registry_says_so(tmp_path: Path) -> None:
    errors = [4.0, 6.0, 2.0, 8.0, 5.0, 3.0]
    first = write(tmp_path / "a", {f"c{i}": {"hd95": v, "betti_1_error": v} for i, v in enumerate(errors)})
    second = write(tmp_path / "b", {f"c{i}": {"hd95": v - 1, "betti_1_error": v + 1} for i, v in enumerate(errors)})
    comparison = compare_summaries(first, second)
    assert (row(comparison, "hd95").wins, row(comparison, "hd95").verdict) == (6, "better")
    assert (row(comparison, "betti_1_error").losses, row(comparison, "betti_1_error").verdict) == (6, "worse")


def test_noise_is_called_noise_and_warned_of(tmp_path: Path) -> None:
    first = write(tmp_path / "a", dice([0.5] * 10))
    second = write(tmp_path / "b", dice([0.5 + delta for delta in (0.1, -0.1, 0.2, -0.2, 0.05, -0.02, 0, 0, 0.1, 0)]))
    comparison = compare_summaries(first, second)
    found = row(comparison, "dice")
    assert found.interval[0] < 0 < found.interval[1]
    assert (found.wins, found.losses, found.ties) == (4, 3, 3)
    assert found.verdict == "inside the noise"
    assert any("dice" in warning and "inside the noise" in warning for warning in comparison.warnings)


def test_equal_results_are_equal(tmp_path: Path) -> None:
    first = write(tmp_path / "a", dice([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]))
    second = write(tmp_path / "b", dice([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.1 + 0.6]))
    comparison = compare_summaries(first, second)
    assert row(comparison, "dice").verdict == "equal"
    assert row(comparison, "dice").ties == 7
    assert comparison.warnings == []


@pytest.mark.parametrize("cases", [1, 2, 5])
def test_too_few_cases_are_said_to_be_too_few(tmp_path: Path, cases: int) -> None:
    first = write(tmp_path / "a", dice([0.5] * cases))
    second = write(tmp_path / "b", dice([0.6 + index / 100 for index in range(cases)]))
    comparison = compare_summaries(first, second)
    assert row(comparison, "dice").verdict == "too few cases"
    assert (row(comparison, "dice").interval is None) == (cases == 1)
    assert [warning for warning in comparison.warnings if "too few" in warning] != []


def test_cases_in_one_result_alone_are_named_and_left_out(tmp_path: Path) -> None:
    first = write(tmp_path / "a", {**dice([0.5] * 6), "alone": {"Dice": 1.0}})
    second = write(tmp_path / "b", {**dice([0.7, 0.6, 0.7, 0.7, 0.7, 0.7]), "new_1": {"Dice": 0.0}})
    comparison = compare_summaries(first, second)
    assert comparison.only_in_baseline == ["alone"]
    assert comparison.only_in_result == ["new_1"]
    assert row(comparison, "dice").cases == 6
    assert row(comparison, "dice").baseline == 0.5
    assert any("alone" in warning and str(second) in warning for warning in comparison.warnings)
    assert any("new_1" in warning and str(first) in warning for warning in comparison.warnings)


def test_cases_are_paired_by_name_not_by_order(tmp_path: Path) -> None:
    values = {f"case_{index}": {"Dice": index / 10} for index in range(8)}
    first = write(tmp_path / "a", values)
    second = write(tmp_path / "b", dict(reversed(values.items())), ending=".tif")
    assert row(compare_summaries(first, second), "dice").verdict == "equal"


def test_an_undefined_value_leaves_the_case_out_and_is_named(tmp_path: Path) -> None:
    first = write(tmp_path / "a", dice([math.nan, math.nan, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]))
    second = write(tmp_path / "b", dice([math.nan, 0.0, 0.6, 0.7, 0.6, 0.6, 0.6, 0.6]))
    comparison = compare_summaries(first, second)
    assert row(comparison, "dice").cases == 6
    assert any("case_1" in warning and "case_0" not in warning for warning in comparison.warnings)


def test_null_is_undefined_too(tmp_path: Path) -> None:
    first = write(tmp_path / "a", {"c0": {"Dice": None, "hd95": 1.0}, "c1": {"Dice": 0.5, "hd95": 2.0}})
    found = compare_summaries(first, first)
    assert row(found, "dice").cases == 1
    assert row(found, "hd95").cases == 2


def test_a_metric_without_a_value_anywhere_is_warned_of(tmp_path: Path) -> None:
    first = write(tmp_path / "a", dice([math.nan] * 6))
    comparison = compare_summaries(first, first)
    assert comparison.differences == []
    assert any("dice" in warning and "no case" in warning for warning in comparison.warnings)


def test_several_labels_are_averaged_within_a_case(tmp_path: Path) -> None:
    labels = [({"1": {"Dice": 0.4}, "(1, 2)": {"Dice": 0.8}}, {"1": {"Dice": 0.5}, "(1, 2)": {"Dice": 0.6}})] * 6
    first = write(tmp_path / "a", {f"c{index}": pair[0] for index, pair in enumerate(labels)})
    second = write(tmp_path / "b", {f"c{index}": pair[1] for index, pair in enumerate(labels)})
    comparison = compare_summaries(first, second, per_label=True)
    assert row(comparison, "dice").difference == pytest.approx(0.55 - 0.6)
    assert row(comparison, "dice", "1").difference == pytest.approx(0.1)
    assert row(comparison, "dice", "(1, 2)").difference == pytest.approx(-0.2)


def test_counts_are_compared_only_when_asked_for_and_have_no_winner(tmp_path: Path) -> None:
    cases = {f"c{index}": {"Dice": 0.5, "n_pred": 10.0 + index} for index in range(6)}
    first = write(tmp_path / "a", cases)
    second = write(tmp_path / "b", {case: {**values, "n_pred": 30.0} for case, values in cases.items()})
    assert [entry.metric for entry in compare_summaries(first, second).differences] == ["dice"]
    found = row(compare_summaries(first, second, metrics=["n_pred"]), "n_pred")
    assert (found.wins, found.losses, found.ties, found.verdict) == (None, None, None, "higher")


def test_metrics_are_named_as_in_the_registry_or_the_file(tmp_path: Path) -> None:
    first = write(tmp_path / "a", dice([0.5] * 6))
    assert [e.metric for e in compare_summaries(first, first, metrics=["dice", "Dice"]).differences] == ["dice"]
    with pytest.raises(ConfigError, match="cldice"):
        compare_summaries(first, first, metrics=["cldcie"])
    with pytest.raises(ConfigError, match=r"hd95.*nnunet-topo evaluate"):
        compare_summaries(first, first, metrics=["hd95"])


def test_the_richer_file_of_a_folder_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "fold_0" / "validation", dice([0.1] * 6))
    write(tmp_path / "fold_0" / "validation", {"c": {"cldice": 0.5}}, name="summary_topo.json")
    comparison = compare_summaries(tmp_path / "fold_0", tmp_path / "fold_0" / "validation")
    assert comparison.baseline.name == comparison.result.name == "summary_topo.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "readable JSON"),
        ("[]", "metric_per_case"),
        ('{"metric_per_case": [{"metrics": {}}]}', "prediction_file"),
        ('{"metric_per_case": [{"metrics": {"1": {"Dice": "x"}}, "prediction_file": "c.tif"}]}', "case 'c'"),
        (json.dumps({"metric_per_case": [{"metrics": {}, "prediction_file": name} for name in ("c.tif", "d/c.tif")]}),
         "'c' twice"),
    ],
)  # fmt: skip
def test_a_file_of_another_shape_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "summary.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        compare_summaries(file, file)


def test_a_file_without_cases_is_named(tmp_path: Path) -> None:
    first = write(tmp_path / "a", dice([0.5] * 6))
    empty = tmp_path / "empty.json"
    empty.write_text('{"metric_per_case": []}')
    with pytest.raises(DataError, match=rf"cases: expected some that both results hold.* {empty} holds none\. Compare"):
        compare_summaries(first, empty)


@pytest.mark.parametrize("metrics", [None, ["dice"]])
def test_a_file_without_values_holds_none(tmp_path: Path, metrics: list[str] | None) -> None:
    first = write(tmp_path / "a", dice([0.5] * 6))
    empty = write(tmp_path / "b", {case: {"1": {}} for case in dice([0.5] * 6)})
    with pytest.raises((ConfigError, DataError), match=r"Dice and none\.|holds none\."):
        compare_summaries(first, empty, metrics=metrics)


def test_a_folder_without_scores_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nnunet-topo evaluate"):
        compare_summaries(tmp_path, tmp_path)


def test_scores_taken_with_other_settings_are_warned_of(tmp_path: Path) -> None:
    files = []
    for name, tolerance in (("a", 1.0), ("b", 2.0), ("c", 2.0)):
        files.append(write(tmp_path / name, dice([0.5] * 6)))
        content = json.loads(files[-1].read_text())
        files[-1].write_text(json.dumps({**content, "settings": {"tolerance_mm": tolerance, "connectivity": None}}))
    assert any("tolerance_mm: 1.0 and 2.0" in warning for warning in compare_summaries(*files[:2]).warnings)
    assert compare_summaries(*files[1:]).warnings == []


def test_no_case_in_common_is_an_error(tmp_path: Path) -> None:
    first = write(tmp_path / "a", {"x": {"Dice": 0.5}})
    second = write(tmp_path / "b", {"y": {"Dice": 0.5}})
    with pytest.raises(DataError, match=r"x.*y"):
        compare_summaries(first, second)


def test_the_interval_agrees_with_scipy() -> None:
    differences = np.random.default_rng(0).gamma(2.0, 0.1, 40) - 0.15
    low, high = bootstrap_interval(differences)
    with np.errstate(all="ignore"):
        expected = stats.bootstrap((differences,), np.mean, n_resamples=10_000, method="percentile").confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_the_interval_depends_on_the_seed_alone() -> None:
    differences = np.random.default_rng(1).normal(size=15)
    assert bootstrap_interval(differences, seed=4) == bootstrap_interval(differences, seed=4)
    assert bootstrap_interval(differences, seed=4) != bootstrap_interval(differences, seed=5)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    inside = 0
    for trial in range(1000):
        low, high = bootstrap_interval(rng.normal(0.3, 1.0, 30), resamples=300, seed=trial)
        inside += low <= 0.3 <= high
    # The percentile interval of 30 normal values covers 93 %: it has no correction for their estimated spread.
    assert 0.89 <= inside / 1000 <= 0.96
