"""What is wrong with one case is said of that case, and the others are scored."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from label_folders import Folders, random_labels, write_labels
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_topo.errors import DataError
from nnunet_topo.evaluation.cases import Case, read_case
from nnunet_topo.evaluation.evaluate import evaluate_folders
from nnunet_topo.evaluation.layout import LabelSystem
from nnunet_topo.evaluation.pool import run_each
from nnunet_topo.evaluation.score_case import CaseScores, Settings, score_case
from nnunet_topo.metrics.registry import METRICS

LABELS = {"background": 0, "sheet": 1, "ignore": 2}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil(folders: Folders) -> dict[str, str]:
    """Break a case in every way; what each message must say."""
    truth, prediction = random_labels(0, shape=(16, 20, 24)), random_labels(1, shape=(16, 20, 24))
    for name in ("good1", "good2", "truncated", "truncated_truth", "not_a_file", "fractions"):
        folders.add(name, truth, prediction)
    truncate(folders.predictions / f"truncated{folders.ending}")
    truncate(folders.truth / f"truncated_truth{folders.ending}")
    (folders.predictions / f"not_a_file{folders.ending}").write_bytes(b"")
    folders.add("shape", truth, prediction[:, :-1])
    folders.add("axes", truth, prediction.transpose(2, 1, 0))
    folders.add("value", truth, np.where(prediction == 1, 255, 0).astype(np.uint8))
    folders.add("value_in_truth", np.where(truth == 1, 255, 0).astype(np.uint8), prediction)
    folders.add("missing", truth, None)
    folders.add("extra", None, prediction)
    write_labels(folders.predictions / f"fractions{folders.ending}", prediction.astype(np.float32) / 2)
    return {
        "axes": "expected the shape (16, 20, 24) of the ground truth, got (24, 20, 16)",
        "extra": "ground truth: expected a file for this prediction, got none",
        "fractions": "expected whole numbers",
        "missing": "prediction: expected a file, got none",
        "not_a_file": "can read, got",
        "shape": "expected the shape (16, 20, 24) of the ground truth, got (16, 19, 24)",
        "truncated": f"predictions/truncated{folders.ending}",
        "truncated_truth": f"labelsTr/truncated_truth{folders.ending}",
        "value": "expected only the labels 0, 1, 2, got 255",
        "value_in_truth": "expected only the labels 0, 1, 2, got 255",
    }


@pytest.mark.parametrize(("ending", "processes"), [(".nii.gz", 1), (".nii.gz", 2), (".tif", 1), (".nrrd", 1)])
def test_broken_cases_are_named_and_the_rest_is_scored(tmp_path: Path, ending: str, processes: int) -> None:
    folders = Folders(tmp_path / "data", LABELS, ending)
    expected = spoil(folders)
    evaluation = evaluate_folders(
        folders.truth, folders.predictions, metrics=["dice"], processes=processes, progress=False
    )
    assert [problem.case for problem in evaluation.problems] == list(expected)
    for problem in evaluation.problems:
        assert expected[problem.case] in problem.message
    assert evaluation.summary["errors"] == [
        {"case": problem.case, "message": problem.message} for problem in evaluation.problems
    ]
    scored = [Path(case["prediction_file"]).name for case in evaluation.summary["metric_per_case"]]
    assert scored == [f"good1{ending}", f"good2{ending}"]
    truth, prediction = random_labels(0, shape=(16, 20, 24)), random_labels(1, shape=(16, 20, 24))
    dice = 2 * (truth & prediction).sum() / (truth.sum() + prediction.sum())
    assert evaluation.summary["mean"]["1"]["Dice"] == pytest.approx(dice)


def test_all_cases_may_be_broken(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", LABELS)
    folders.add("a", random_labels(0), None)
    evaluation = evaluate_folders(folders.truth, folders.predictions, processes=2, progress=False)
    assert [problem.case for problem in evaluation.problems] == ["a"]
    assert np.isnan(evaluation.summary["foreground_mean"]["Dice"])


def test_chill_and_a_choice_of_cases_leave_out_what_was_not_predicted(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", LABELS)
    folders.add_random(3)
    folders.add("missing", random_labels(0), None)
    options = {"metrics": ["dice"], "processes": 1, "progress": False}
    evaluation = evaluate_folders(folders.truth, folders.predictions, chill=True, **options)
    assert not evaluation.problems
    assert len(evaluation.summary["metric_per_case"]) == 3
    evaluation = evaluate_folders(folders.truth, folders.predictions, cases=["a1", "missing", "nowhere"], **options)
    assert [problem.case for problem in evaluation.problems] == ["missing", "nowhere"]
    assert len(evaluation.summary["metric_per_case"]) == 1


def test_files_of_other_kinds_are_no_cases(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", LABELS)
    folders.add_random(1)
    for name in (
        "dataset.json",
        "plans.json",
        "predict_from_raw_data_args.json",
        "a0.npz",
        ".a0.nii.gz",
        "summary.json",
    ):
        (folders.predictions / name).write_text((tmp_path / "data" / "dataset.json").read_text())
    (folders.predictions / "sub.nii.gz").mkdir()
    evaluation = evaluate_folders(folders.truth, folders.predictions, metrics=["dice"], processes=1, progress=False)
    assert not evaluation.problems


def test_the_ignore_label_in_a_prediction_is_background_there(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", LABELS)
    truth = random_labels(0, (0, 1, 2))
    folders.add("itself", truth, truth)
    evaluation = evaluate_folders(folders.truth, folders.predictions, processes=1, progress=False)
    assert not evaluation.problems
    assert evaluation.summary["mean"]["1"]["Dice"] == 1
    assert evaluation.summary["mean"]["1"]["betti_0_error"] == 0


def test_a_turned_header_is_a_warning(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", LABELS)
    folders.add_random(1)
    path = folders.predictions / "a0.nii.gz"
    image = sitk.ReadImage(str(path))
    image.SetOrigin((5.0, 0.0, 0.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path))
    evaluation = evaluate_folders(folders.truth, folders.predictions, processes=1, progress=False)
    assert [warning.message.split(":")[0] for warning in evaluation.warnings] == ["origin", "direction"]
    assert not evaluation.problems


def test_one_case_can_be_read_alone(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", LABELS)
    folders.add_random(1)
    names = ("a0", folders.truth / "a0.nii.gz", folders.predictions / "a0.nii.gz")
    found = read_case(Case(*names), SimpleITKIO)
    assert np.array_equal(found.ground_truth, random_labels(0))
    assert np.array_equal(found.prediction, random_labels(1))
    assert found.spacing_mm == (3.0, 1.0, 0.5)
    with pytest.raises(DataError, match="nowhere"):
        read_case(Case("a0", names[1], tmp_path / "nowhere.nii.gz"), SimpleITKIO)


# eval is importable in a worker process by name, and its tasks may do anything.
DIE = "__import__('os').kill(__import__('os').getpid(), 9)"


def test_a_killed_worker_costs_only_its_own_task() -> None:
    tasks = ["1", "2", DIE, "4", "5", "6", "7", "8", "9", "10"]
    results = dict(run_each(eval, tasks, processes=2))
    error = results.pop(2)
    assert isinstance(error, DataError)
    assert "dead process" in str(error)
    assert results == {index: index + 1 for index in (0, 1, *range(3, 10))}


def test_a_task_that_dies_only_beside_another_is_run_again_alone(tmp_path: Path) -> None:
    first = f"{str(tmp_path / 'tried')!r}"
    once = f"__import__('os').path.exists({first}) or (open({first}, 'w').close(), {DIE})"
    assert dict(run_each(eval, [once, "2"], processes=2)) == {0: True, 1: 2}


def test_an_error_of_the_program_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_each(eval, ["1", "1 / 0"], processes=2))


def test_nothing_is_kept_from_case_to_case(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "data", LABELS)
    shape = (24, 20, 22)
    folders.add("a", random_labels(0, (0, 0, 0, 1, 2), shape), random_labels(1, (0, 0, 0, 1), shape))
    labels = LabelSystem((1,), frozenset({0, 1, 2}), 2)
    case = Case("a", folders.truth / "a.nii.gz", folders.predictions / "a.nii.gz")
    task = (case, Settings(SimpleITKIO, labels, tuple(METRICS), 2.0, None))
    score_case(task)
    tracemalloc.start()
    try:
        score_case(task)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(5):
            assert isinstance(score_case(task), CaseScores)
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Five masks of the case are 53 kB.
    assert after - before < 25_000
    assert peak - before > 100_000


def test_an_order_of_regions_that_is_no_list(tmp_path: Path) -> None:
    folders = Folders(tmp_path, {"background": 0, "whole": [1, 2], "core": 2}, regions_class_order=3)
    folders.add_random(1)
    with pytest.raises(DataError, match="expected labels that nnU-Net accepts"):
        evaluate_folders(folders.truth, folders.predictions, processes=1)
