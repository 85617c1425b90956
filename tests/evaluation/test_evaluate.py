"""Scores of folders: equal to nnU-Net's summary.json where it has them, and right in every format."""

from __future__ import annotations

import csv
import json
import math
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from label_folders import SPACING, Folders, random_labels, write_labels
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder, load_summary_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.evaluation.evaluate import evaluate_folders, write_evaluation
from nnunet_topo.metrics.registry import DEFAULT_METRICS, METRICS, NNUNET_METRICS
from nnunet_topo.metrics.scores import scores


def evaluate(folders: Folders, **options: object):
    options = {"processes": 1, "progress": False, "metrics": ["dice"], **options}
    return evaluate_folders(folders.truth, folders.predictions, **options)


@pytest.fixture
def nnunets_summary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Factory: nnU-Net's own summary of folders, its pool of processes made one of threads."""
    context = SimpleNamespace(Pool=ThreadPool)
    monkeypatch.setattr(
        "nnunetv2.evaluation.evaluate_predictions.multiprocessing", SimpleNamespace(get_context=lambda _: context)
    )

    def summary(folders: Folders) -> dict:
        content = json.loads((folders.root / "dataset.json").read_text())
        manager = LabelManager(content["labels"], content.get("regions_class_order"))
        compute_metrics_on_folder(
            str(folders.truth),
            str(folders.predictions),
            str(tmp_path / "stock.json"),
            SimpleITKIO(),
            folders.ending,
            manager.foreground_regions if manager.has_regions else manager.foreground_labels,
            manager.ignore_label,
            1,
        )
        return json.loads((tmp_path / "stock.json").read_text())

    return summary


LABEL_SYSTEMS = {
    "one class": ({"background": 0, "sheet": 1}, {}, (0, 1), ()),
    "ignore label": ({"background": 0, "sheet": 1, "ignore": 2}, {}, (0, 1), (2,)),
    "several classes": ({"background": 0, "a": 1, "b": 2, "c": 3}, {}, (0, 0, 1, 2), ()),
    "regions": (
        {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "centre": 3},
        {"regions_class_order": [1, 2, 3]},
        (0, 1, 2, 3),
        (),
    ),
    "regions and ignore label": (
        {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
        {"regions_class_order": [1, 2]},
        (0, 1, 2),
        (3,),
    ),
}


@pytest.mark.parametrize("system", LABEL_SYSTEMS)
def test_equals_nnunets_own_summary(system: str, tmp_path: Path, nnunets_summary) -> None:
    labels, description, values, truth_values = LABEL_SYSTEMS[system]
    folders = Folders(tmp_path / "data", labels, **description)
    folders.add_random(3, values, truth_values)
    folders.add("empty", np.zeros((5, 6, 7), np.uint8), np.zeros((5, 6, 7), np.uint8))
    stock = nnunets_summary(folders)
    ours = evaluate(folders).summary
    assert [case["prediction_file"] for case in ours["metric_per_case"]] == [
        case["prediction_file"] for case in stock["metric_per_case"]
    ]
    for case, reference in zip(ours["metric_per_case"], stock["metric_per_case"], strict=True):
        assert case["reference_file"] == reference["reference_file"]
        assert case["metrics"].keys() == reference["metrics"].keys()
        for label, expected in reference["metrics"].items():
            assert case["metrics"][label] == pytest.approx(expected, nan_ok=True, rel=1e-12)
    assert ours["mean"].keys() == stock["mean"].keys()
    for label, expected in stock["mean"].items():
        assert ours["mean"][label] == pytest.approx(expected, nan_ok=True, rel=1e-12)
    assert ours["foreground_mean"] == pytest.approx(stock["foreground_mean"], nan_ok=True, rel=1e-12)


def test_all_metrics_are_those_of_the_masks_with_ignored_voxels_left_out(tmp_path: Path) -> None:
    labels, description, values, truth_values = LABEL_SYSTEMS["regions and ignore label"]
    folders = Folders(tmp_path / "data", labels, **description)
    folders.add_random(1, values, truth_values)
    names = list(METRICS)
    found = evaluate(folders, metrics=names, tolerance_mm=1.0, connectivity=6).summary["metric_per_case"][0]["metrics"]
    truth, prediction = random_labels(0, (*values, *truth_values)), random_labels(1, values)
    assert list(found) == ["(1, 2)", "(2,)"]
    for label, members in zip(found, ([1, 2], [2]), strict=True):
        expected = scores(
            np.isin(prediction, members),
            np.isin(truth, members),
            names,
            spacing_mm=SPACING,
            tolerance_mm=1.0,
            connectivity=6,
            ignore=truth == 3,
        )
        assert found[label] == {METRICS[name].key: value for name, value in expected.items()}


@pytest.mark.parametrize(
    ("ending", "labels"),
    [
        (".tif", {"background": 0, "sheet": 1}),
        (".nrrd", {"background": 0, "sheet": 1}),
        (".nii.gz", None),
        (".tif", None),
        (".nrrd", None),
    ],
)
def test_every_format_gives_the_same_scores_in_mm(tmp_path: Path, ending: str, labels: object) -> None:
    folders = Folders(tmp_path / "data", labels, ending)
    folders.add_random(2)
    expected = scores(
        random_labels(1) == 1, random_labels(0) == 1, ["hd95", "assd"], spacing_mm=SPACING
    )  # of the first case
    evaluation = evaluate(folders, metrics=["hd95", "assd"])
    assert not evaluation.problems
    found = evaluation.summary["metric_per_case"][0]["metrics"]["1"]
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("ending", [".png", ".nii.gz"])
def test_images_are_scored_in_two_dimensions(tmp_path: Path, ending: str) -> None:
    folders = Folders(tmp_path / "data", None, ending)
    truth, prediction = random_labels(0, shape=(20, 30)), random_labels(1, shape=(20, 30))
    for folder, labels in ((folders.truth, truth), (folders.predictions, prediction)):
        write_labels(folder / f"a{ending}", labels, (1.0, 1.0))
    names = ["surface_dice", "hd95", "betti_0_labelled", "betti_1_labelled", "betti_2_labelled", "cldice"]
    expected = scores(prediction == 1, truth == 1, names, spacing_mm=(1, 1), connectivity=4)
    found = evaluate(folders, metrics=names, connectivity=4).summary["metric_per_case"][0]["metrics"]["1"]
    assert {name: found[name] for name in names} == expected


def test_a_tif_without_side_car_takes_the_spacing_of_the_prediction(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", {"background": 0, "sheet": 1}, ".tif")
    folders.add_random(1)
    expected = evaluate(folders, metrics=["assd"]).summary["mean"]
    (folders.truth / "a0.json").unlink()
    evaluation = evaluate(folders, metrics=["assd"])
    assert evaluation.summary["mean"] == expected
    assert not evaluation.warnings
    (folders.predictions / "a0.json").unlink()
    evaluation = evaluate(folders, metrics=["assd"])
    assert evaluation.summary["mean"] != expected
    assert not evaluation.problems


def test_another_spacing_or_place_is_a_warning_and_the_ground_truths_spacing_counts(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", {"background": 0, "sheet": 1})
    folders.add_random(1)
    expected = evaluate(folders, metrics=["hd95"]).summary["mean"]
    write_labels(folders.predictions / "a0.nii.gz", random_labels(1), (3.0, 1.0, 0.7))
    evaluation = evaluate(folders, metrics=["hd95"])
    assert evaluation.summary["mean"] == expected
    assert not evaluation.problems
    (warning,) = evaluation.warnings
    assert warning.case == "a0"
    assert "spacing: expected (3.0, 1.0, 0.5) of the ground truth, got (3.0, 1.0, 0.7)" in warning.message


def test_without_dataset_json_the_labels_are_those_of_the_ground_truth(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", None)
    folders.add("a", random_labels(0, (0, 3)), random_labels(1, (0, 3)))
    folders.add("b", random_labels(2, (0, 7, 9)), random_labels(3, (0, 3)))
    folders.add("c", random_labels(2, (0, 7)), random_labels(3, (0, 4)))
    evaluation = evaluate(folders)
    assert evaluation.summary["settings"]["labels"] == [3, 7, 9]
    assert evaluation.summary["settings"]["dataset_json"] is None
    assert evaluation.summary["metric_per_case"][0]["metrics"].keys() == {"3", "7", "9"}
    (problem,) = evaluation.problems
    assert problem.case == "c"
    assert "expected only the labels 0, 3, 7, 9, got 4" in problem.message
    ignoring = evaluate(folders, ignore_label=9).summary
    assert ignoring["settings"]["labels"] == [3, 7]
    assert ignoring["mean"]["3"]["n_pred"] < evaluation.summary["mean"]["3"]["n_pred"]


def test_the_preset_of_the_competition_knows_its_ignore_label_without_dataset_json(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", None, ".tif")
    folders.add("a", random_labels(0, (0, 1, 2)), random_labels(1))
    settings = evaluate(folders, metrics=None, preset="vesuvius").summary["settings"]
    assert (settings["labels"], settings["ignore_label"]) == ([1], 2)
    assert "vesuvius" in settings["labels_from"]


def test_dataset_json_is_found_beside_the_predictions_first(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", {"background": 0, "a": 1, "b": 2})
    folders.add_random(1, (0, 1, 2))
    assert evaluate(folders).summary["settings"]["labels"] == [1, 2]
    nearer = {"labels": {"background": 0, "a": 1, "ignore": 2}, "file_ending": ".nii.gz"}
    (folders.predictions / "dataset.json").write_text(json.dumps(nearer))
    for other in ("plans.json", "predict_from_raw_data_args.json"):
        (folders.predictions / other).write_text("{}")
    evaluation = evaluate(folders)
    assert not evaluation.problems
    assert evaluation.summary["settings"]["labels"] == [1]
    assert evaluation.summary["settings"]["dataset_json"] == str(folders.predictions / "dataset.json")
    given = {"labels": {"background": 0, "all": 1, "rest": 2}}
    assert evaluate(folders, dataset_json=given).summary["settings"]["ignore_label"] is None
    assert evaluate(folders, dataset_json=folders.root / "dataset.json").summary["settings"]["labels"] == [1, 2]


def test_the_spread_over_the_cases_stands_beside_the_mean(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", {"background": 0, "sheet": 1})
    folders.add_random(3)
    summary = evaluate(folders, metrics=["foreground_predicted", "foreground_labelled"]).summary
    for key, offset in (("foreground_labelled", 0), ("foreground_predicted", 1)):
        shares = [float((random_labels(2 * index + offset) == 1).mean()) for index in range(3)]
        assert summary["mean"]["1"][key] == pytest.approx(np.mean(shares))
        assert summary["sd"]["1"][key] == pytest.approx(np.std(shares, ddof=1))
    folders = Folders(tmp_path / "one", {"background": 0, "sheet": 1})
    folders.add_random(1)
    assert math.isnan(evaluate(folders).summary["sd"]["1"]["Dice"])


def test_without_a_choice_nnunets_metrics_and_the_default_ones_are_there(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", {"background": 0, "sheet": 1})
    folders.add_random(1)
    summary = evaluate(folders, metrics=None).summary
    names = dict.fromkeys((*NNUNET_METRICS, *DEFAULT_METRICS))
    assert list(summary["mean"]["1"]) == [METRICS[name].key for name in names]
    both = evaluate(folders, metrics=["accuracy"], preset="vessel").summary["mean"]["1"]
    assert {"accuracy", "cldice"} <= both.keys()
    assert "assd" not in both


def test_what_is_written_can_be_read_by_nnunet_and_by_a_spreadsheet(tmp_path: Path) -> None:
    labels, description, values, _ = LABEL_SYSTEMS["regions"]
    folders = Folders(tmp_path / "data", labels, **description)
    folders.add_random(2, values)
    folders.add("lost", random_labels(0, values), None)
    folders.add("void", np.zeros((3, 3, 3), np.uint8), np.zeros((3, 3, 3), np.uint8))
    evaluation = evaluate(folders, metrics=["cldice"])
    path = tmp_path / "new" / "out.json"
    assert write_evaluation(evaluation, path) == tmp_path / "new" / "out.csv"
    assert not list(path.parent.glob("*.tmp"))
    loaded = load_summary_json(str(path))
    assert loaded["mean"][(1, 2, 3)]["cldice"] == evaluation.summary["mean"]["(1, 2, 3)"]["cldice"]
    assert json.loads(path.read_text())["errors"][0]["case"] == "lost"
    rows = list(csv.DictReader((tmp_path / "new" / "out.csv").open()))
    cell = next(row for row in rows if row["case"] == "a1" and row["label"] == "3")
    assert float(cell["Dice"]) == evaluation.summary["metric_per_case"][1]["metrics"]["3"]["Dice"]
    assert next(row for row in rows if row["case"] == "void")["Dice"] == ""
    assert "expected a file, got none" in next(row for row in rows if row["case"] == "lost")["problem"]
    assert float(next(row for row in rows if row["case"] == "mean")["Dice"]) > 0


def test_settings_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", {"background": 0, "sheet": 1})
    for options, message in (
        ({"metrics": ["dise"]}, r"metric: expected one of .*Did you mean 'dice'"),
        ({"preset": "vesuvio"}, r"preset: expected one of vesuvius, vessel, volumetric.*Did you mean 'vesuvius'"),
        ({"processes": 0}, "processes: expected at least 1"),
        ({"tolerance_mm": math.nan}, "tolerance_mm: expected a number >= 0"),
        ({"connectivity": 18}, "connectivity: expected 26 or 6"),
        ({"ignore_label": 1}, r"ignore_label: expected that of dataset\.json or preset \(None\), got 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(folders, **options)
    with pytest.raises(DataError, match=r"ground truth folder: expected files \*\.nii\.gz, got none"):
        evaluate(folders)
    with pytest.raises(ConfigError, match="prediction folder: expected a folder, got no such folder"):
        evaluate_folders(folders.truth, tmp_path / "nowhere")
    with pytest.raises(DataError, match="labels: expected a mapping"):
        evaluate(folders, dataset_json={"file_ending": ".nii.gz"})
    with pytest.raises(DataError, match="labels: expected labels that nnU-Net accepts"):
        evaluate(folders, dataset_json={"labels": {"background": 0, "ignore": 1, "sheet": 2}})
