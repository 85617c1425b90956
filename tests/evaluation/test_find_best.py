"""find-best on model folders as nnU-Net leaves them."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnunet_models import DATASET, Experiment, shifted, with_holes
from nnunetv2.evaluation.find_best_configuration import find_best_configuration

from nnunet_topo.cli.__main__ import main

HOLED, SHIFTED = "nnUNetTrainer__nnUNetPlans__3d_fullres", "nnUNetTrainerTopo__nnUNetPlans__3d_fullres"
BOTH = ("-tr", "nnUNetTrainer", "nnUNetTrainerTopo", "-c", "3d_fullres", "-f", "0", "1", "-np", "1")
ENSEMBLE = f"ensemble___{HOLED}___{SHIFTED}___0_1"


@pytest.fixture
def two_models(experiment: Callable[..., Experiment]) -> Experiment:
    """One with a high Dice and many holes, one that is whole and a voxel off."""
    made = experiment()
    made.write_truth()
    # The surer one decides what the ensemble says, so that it is no better than that.
    made.train("nnUNetTrainer", with_holes, sure=0.9)
    made.train("nnUNetTrainerTopo", shifted, sure=0.6)
    return made


def information(experiment: Experiment) -> dict[str, Any]:
    return json.loads((experiment.results / "inference_information.json").read_text())


def find_best(*arguments: str) -> int:
    return main(["find-best", "950", *BOTH, *arguments])


def chosen_trainers(experiment: Experiment) -> list[str]:
    models = information(experiment)["best_model_or_ensemble"]["selected_model_or_models"]
    return [model["trainer"] for model in models]


@pytest.mark.parametrize(
    ("metric", "trainer"),
    [
        ("dice", "nnUNetTrainer"),
        ("betti_1_error", "nnUNetTrainerTopo"),
        ("leaderboard", "nnUNetTrainerTopo"),
    ],
)
def test_the_metric_decides(two_models: Experiment, metric: str, trainer: str) -> None:
    assert find_best("--metric", metric) == 0
    found = information(two_models)
    assert found["metric"] == metric
    assert list(found["all_results"]) == [HOLED, SHIFTED, ENSEMBLE]
    assert chosen_trainers(two_models) == [trainer]
    means = found["means"]
    assert means[HOLED]["dice"] > means[SHIFTED]["dice"] + 0.1
    assert found["all_results"] == {name: values[metric] for name, values in means.items()}


def test_a_guard_excludes_the_winner(two_models: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_best("--metric", "betti_1_error", "--guard", "dice:-0.005") == 0
    assert chosen_trainers(two_models) == ["nnUNetTrainer"]
    assert list(information(two_models)["excluded"]) == [SHIFTED]
    assert "left out: dice" in capsys.readouterr().out
    assert find_best("--metric", "betti_1_error", "--guard", "dice:-0.5", "--no_overwrite") == 0
    assert chosen_trainers(two_models) == ["nnUNetTrainerTopo"]


def test_by_dice_it_is_nnunets_own_command(two_models: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    """The same files with the same content: values, postprocessing, instructions."""
    assert find_best("--metric", "dice") == 0
    printed = capsys.readouterr().out
    ours, folder = information(two_models), two_models.results
    files = {path.relative_to(folder) for path in folder.rglob("*")}
    instructions = (folder / "inference_instructions.txt").read_text()
    assert instructions in printed
    merged = folder / HOLED / "crossval_results_folds_0_1"
    chosen = pickle.loads((merged / "postprocessing.pkl").read_bytes())
    for path in [*folder.rglob("crossval_results*"), folder / "ensembles"]:
        shutil.rmtree(path)
    models = [{"trainer": name.split("__")[0], "plans": "nnUNetPlans", "configuration": "3d_fullres"}
              for name in (HOLED, SHIFTED)]  # fmt: skip
    theirs = find_best_configuration(DATASET, models, num_processes=1, folds=[0, 1])
    assert {key: value for key, value in ours.items() if key in theirs} == json.loads(json.dumps(theirs))
    assert instructions == (folder / "inference_instructions.txt").read_text()
    assert pickle.loads((merged / "postprocessing.pkl").read_bytes()) == chosen
    missing = {path.relative_to(folder) for path in folder.rglob("*")} - files
    assert missing == set()


def test_the_ensemble_wins_where_it_is_best(experiment: Callable[..., Experiment]) -> None:
    made = experiment()
    made.write_truth()

    def left_half(labels: np.ndarray) -> np.ndarray:
        return np.where(np.arange(labels.shape[2]) < 11, labels, 0).astype(np.uint8)

    def right_half(labels: np.ndarray) -> np.ndarray:
        return np.where(np.arange(labels.shape[2]) >= 11, labels, 0).astype(np.uint8)

    made.train("nnUNetTrainer", left_half, sure=0.9)
    made.train("nnUNetTrainerTopo", right_half, sure=0.9)
    for trainer in ("nnUNetTrainer", "nnUNetTrainerTopo"):
        for file in made.model_folder(trainer).rglob("*.npz"):
            # Sure of what it finds, undecided elsewhere.
            with np.load(file) as content:
                probabilities = content["probabilities"]
            probabilities = np.where(probabilities[:1] > 0.5, [[[[0.52]]], [[[0.48]]]], probabilities)
            np.savez_compressed(file, probabilities=probabilities.astype(np.float32))
    assert find_best("--metric", "surface_dice") == 0
    found = information(made)
    assert chosen_trainers(made) == ["nnUNetTrainer", "nnUNetTrainerTopo"]
    assert found["best_model_or_ensemble"]["result_on_crossval_pre_pp"] == pytest.approx(1.0)
    text = (made.results / "inference_instructions.txt").read_text()
    assert text.count("--save_probabilities") == 2
    assert "nnUNetv2_ensemble -i OUTPUT_FOLDER_MODEL_1 OUTPUT_FOLDER_MODEL_2 -o OUTPUT_FOLDER" in text
    assert (made.results / "ensembles" / ENSEMBLE / "postprocessing.pkl").is_file()


def with_second_sheet(labels: np.ndarray) -> np.ndarray:
    """The sheet's right part is cut off by a gap: two components, the smaller one right as well."""
    cut = labels.copy()
    cut[:, :, 14:16] = 0
    return cut


def with_dust(labels: np.ndarray) -> np.ndarray:
    dusty = labels.copy()
    dusty[-1, 0, ::3] = 1
    return dusty


def test_postprocessing_is_judged_by_the_metric(experiment: Callable[..., Experiment]) -> None:
    """The smaller part of a sheet in two pieces costs Dice when it is removed, and mends the number of components."""
    made = experiment()
    made.write_truth()
    made.train("nnUNetTrainerTopo", with_second_sheet)
    arguments = ["find-best", "950", "-tr", "nnUNetTrainerTopo", "-c", "3d_fullres", "-f", "0", "1", "-np", "1"]
    assert main([*arguments, "--metric", "dice"]) == 0
    merged = made.results / SHIFTED / "crossval_results_folds_0_1"
    assert pickle.loads((merged / "postprocessing.pkl").read_bytes()) == ([], [])
    assert main([*arguments, "--metric", "betti_0_error"]) == 0
    functions, keywords = pickle.loads((merged / "postprocessing.pkl").read_bytes())
    assert [function.__name__ for function in functions] == ["remove_all_but_largest_component_from_segmentation"]
    assert keywords == [{"labels_or_regions": [1]}]
    best = information(made)["best_model_or_ensemble"]
    assert (best["result_on_crossval_pre_pp"], best["result_on_crossval_post_pp"]) == (1.0, 0.0)
    report = json.loads((merged / "postprocessing.json").read_text())
    assert report["postprocessed"]["foreground_mean"]["Dice"] < report["input_folder"]["foreground_mean"]["Dice"]
    stock = json.loads((merged / "postprocessed" / "summary.json").read_text())
    assert stock["foreground_mean"]["Dice"] == report["postprocessed"]["foreground_mean"]["Dice"]
    assert not (merged / "postprocessed" / "temp").exists()
    assert main([*arguments, "--metric", "betti_0_error", "--guard", "dice:-0.05"]) == 0
    assert pickle.loads((merged / "postprocessing.pkl").read_bytes()) == ([], [])
    assert "not taken: dice" in information(made)["postprocessing"][0]


@pytest.mark.parametrize(
    "labels", [{"background": 0, "outer": 1, "core": 2}, {"background": 0, "whole": [1, 2], "core": 2}]
)
def test_several_labels_get_the_postprocessing_that_nnunet_gives_them(
    experiment: Callable[..., Experiment], labels: dict[str, Any]
) -> None:
    made = experiment(labels)
    for truth in made.truth.values():
        truth[:, 6:10, 6:12][truth[:, 6:10, 6:12] == 1] = 2
    made.write_truth()

    def predict(truth: np.ndarray) -> np.ndarray:
        dusty = with_dust(truth)
        dusty[0, -1, ::4] = 2
        return dusty

    made.train("nnUNetTrainerTopo", predict)
    arguments = ["find-best", "950", "-tr", "nnUNetTrainerTopo", "-c", "3d_fullres", "-f", "0", "1", "-np", "1"]
    assert main([*arguments, "--metric", "dice"]) == 0
    merged = made.results / SHIFTED / "crossval_results_folds_0_1"
    ours = pickle.loads((merged / "postprocessing.pkl").read_bytes())
    found = information(made)
    model = {"trainer": "nnUNetTrainerTopo", "plans": "nnUNetPlans", "configuration": "3d_fullres"}
    theirs = find_best_configuration(DATASET, [model], num_processes=1, folds=[0, 1])
    assert ours[0], "the case must need a postprocessing"
    assert pickle.loads((merged / "postprocessing.pkl").read_bytes()) == ours
    assert found["best_model_or_ensemble"] == json.loads(json.dumps(theirs["best_model_or_ensemble"]))


def test_the_foreground_is_not_cleaned_at_the_cost_of_a_label(experiment: Callable[..., Experiment]) -> None:
    """Removing dust mends the one label and would take a part of the other, which has two right ones."""
    made = experiment({"background": 0, "sheet": 1, "bodies": 2})
    for truth in made.truth.values():
        truth[-3:-1, 4:6, 4:6] = 2
        truth[4:8, 6:9, 6:9][truth[4:8, 6:9, 6:9] == 1] = 2
    made.write_truth()
    made.train("nnUNetTrainerTopo", with_dust)
    arguments = ["find-best", "950", "-tr", "nnUNetTrainerTopo", "-c", "3d_fullres", "-f", "0", "1", "-np", "1"]
    assert main([*arguments, "--metric", "betti_0_error"]) == 0
    merged = made.results / SHIFTED / "crossval_results_folds_0_1"
    _, keywords = pickle.loads((merged / "postprocessing.pkl").read_bytes())
    assert keywords == [{"labels_or_regions": 1}]
    foreground, sheet_alone, bodies = information(made)["postprocessing"]
    assert "not taken: worse for 2" in foreground
    assert sheet_alone.endswith(", taken")
    assert bodies.endswith(", not taken")


def test_a_cascade_predicts_its_first_stage_first(experiment: Callable[..., Experiment]) -> None:
    made = experiment()
    made.write_truth()
    for configuration in ("3d_lowres", "3d_cascade_fullres"):
        predict = shifted if configuration == "3d_lowres" else with_holes
        made.train("nnUNetTrainerTopo", predict, configuration, sure=0.6 if configuration == "3d_lowres" else 0.9)
    arguments = ("-tr", "nnUNetTrainerTopo", "-c", "3d_lowres", "3d_cascade_fullres", "-f", "0", "1", "-np", "1")
    assert main(["find-best", "950", *arguments, "--metric", "dice", "--disable_ensembling"]) == 0
    lines = (made.results / "inference_instructions.txt").read_text().splitlines()
    first, second = (line for line in lines if line.startswith("nnUNetv2_predict"))
    assert " -c 3d_lowres " in first
    assert " -o OUTPUT_FOLDER_PREV_STAGE " in first
    assert " -c 3d_cascade_fullres " in second
    assert second.endswith("-prev_stage_predictions OUTPUT_FOLDER_PREV_STAGE")
    assert " -o OUTPUT_FOLDER " in second


def test_json_is_all_that_is_printed(two_models: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_best("--metric", "dice", "--json", "--disable_ensembling") == 0
    assert json.loads(capsys.readouterr().out) == information(two_models)


def test_no_overwrite_scores_again_only_what_changed(
    two_models: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nnunet_topo.evaluation import score_predictions

    scored: list[Path] = []
    original = score_predictions.evaluate_folders

    def counting(truth: Path, folder: Path, **settings: Any) -> Any:
        scored.append(folder)
        return original(truth, folder, **settings)

    monkeypatch.setattr(score_predictions, "evaluate_folders", counting)
    assert find_best("--metric", "dice") == 0
    first = information(two_models)
    assert len([folder for folder in scored if "temp" not in folder.parts]) == 3
    scored.clear()
    assert find_best("--metric", "dice", "--no_overwrite") == 0
    assert [folder for folder in scored if "temp" not in folder.parts] == []
    assert information(two_models) == first
    # Another metric is not in the scores that lie there.
    assert find_best("--metric", "surface_dice", "--no_overwrite") == 0
    assert len([folder for folder in scored if "temp" not in folder.parts]) == 3
    # Scored by hand with another tolerance.
    merged = two_models.results / SHIFTED / "crossval_results_folds_0_1"
    right = information(two_models)["all_results"]
    arguments = ["--metrics", "surface_dice", "--tolerance", "0", "--chill", "-np", "1"]
    assert main(["evaluate", str(two_models.labels), str(merged), *arguments]) == 0
    assert find_best("--metric", "surface_dice", "--no_overwrite") == 0
    assert information(two_models)["all_results"] == right


def test_some_of_the_folds_are_enough(two_models: Experiment) -> None:
    """References of the other folds have no prediction, which is no fault."""
    assert find_best("--metric", "surface_dice", "-f", "1") == 0
    found = information(two_models)
    assert found["folds"] == [1]
    merged = two_models.results / SHIFTED / "crossval_results_folds_1"
    cases = json.loads((merged / "summary_topo.json").read_text())["metric_per_case"]
    assert [Path(case["prediction_file"]).name for case in cases] == ["c2.nii.gz", "c3.nii.gz"]
    assert " -f  1 " in (two_models.results / "inference_instructions.txt").read_text()


def test_ignored_voxels_count_for_nothing(experiment: Callable[..., Experiment]) -> None:
    made = experiment({"background": 0, "sheet": 1, "ignore": 2})
    # The holes of the one model lie in what is ignored.
    for truth in made.truth.values():
        truth[:, 3:-3, 3:-3] = 2
    made.write_truth()

    def wrong_where_ignored(truth: np.ndarray) -> np.ndarray:
        return np.where(truth == 2, 1, truth).astype(np.uint8)

    made.train("nnUNetTrainer", wrong_where_ignored)
    made.train("nnUNetTrainerTopo", lambda truth: np.where(truth == 2, 0, np.roll(truth == 1, 2, 0)).astype(np.uint8))
    assert find_best("--metric", "surface_dice", "--disable_ensembling") == 0
    assert information(made)["all_results"][HOLED] == pytest.approx(1.0)
    assert chosen_trainers(made) == ["nnUNetTrainer"]


# ------------------------------------------------------------------------------------------------------------ errors


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert find_best(*arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    return error


def test_an_untrained_model_is_named_with_what_is_trained(
    two_models: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, "--metric", "dice", "-c", "3d_fullres", "2d")
    assert "nnUNetTrainer__nnUNetPlans__2d" in error
    assert HOLED in error
    assert find_best("--metric", "dice", "-c", "3d_fullres", "2d", "--skip_untrained", "--disable_ensembling") == 0
    assert list(information(two_models)["all_results"]) == [HOLED, SHIFTED]


def test_a_missing_fold_is_named_before_anything_is_written(
    two_models: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(capsys, "--metric", "dice", "-f", "0", "1", "2")
    assert "fold 2" in error
    assert "nnUNetv2_train Dataset950_Sheets 3d_fullres 2 -tr nnUNetTrainer -p nnUNetPlans" in error
    assert list(two_models.results.rglob("crossval_results*")) == []


def test_missing_probabilities_are_named_with_both_ways_out(
    two_models: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    (two_models.results / SHIFTED / "fold_1" / "validation" / "c3.npz").unlink()
    error = refused(capsys, "--metric", "dice")
    assert "c3" in error
    assert "--val --npz" in error
    assert "--disable_ensembling" in error
    assert find_best("--metric", "dice", "--disable_ensembling") == 0


def test_models_validated_on_other_cases_are_not_compared(
    two_models: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    (two_models.results / SHIFTED / "fold_1" / "validation" / "c3.nii.gz").unlink()
    assert "c3" in refused(capsys, "--metric", "dice", "--disable_ensembling")


@pytest.mark.parametrize("content", [b"no image", None], ids=["not an image", "cut off"])
def test_a_broken_prediction_is_named(
    two_models: Experiment, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    file = two_models.results / SHIFTED / "fold_1" / "validation" / "c3.nii.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    error = refused(capsys, "--metric", "dice", "--disable_ensembling")
    assert "c3" in error
    assert SHIFTED in error


def test_predictions_that_broke_after_they_were_scored_are_scored_again(
    two_models: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_best("--metric", "dice", "--disable_ensembling") == 0
    file = two_models.results / SHIFTED / "crossval_results_folds_0_1" / "c3.nii.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "c3" in refused(capsys, "--metric", "dice", "--disable_ensembling", "--no_overwrite")


def test_broken_probabilities_are_named(two_models: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    (two_models.results / SHIFTED / "fold_1" / "validation" / "c3.npz").write_bytes(b"no archive")
    error = refused(capsys, "--metric", "dice")
    assert HOLED in error
    assert SHIFTED in error


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (("--metric", "dcie"), ("dice",)),
        (("--metric", "n_pred"), ("better or worse",)),
        (("--metric", "dice", "--guard", "hd95:-1"), ("hd95:+1",)),
        (("--metric", "dice", "-p", "nnUNetPlanz"), ("-p", "nnUNetPlanz.json")),
        (("--metric", "dice", "-c", "3d_full"), ("-c", "3d_fullres")),
        (("--metric", "dice", "-np", "0"), ("-np",)),
        (("--metric", "dice", "-f", "0", "0"), ("-f",)),
    ],
)
def test_bad_arguments(
    two_models: Experiment, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], messages: tuple[str, ...]
) -> None:
    error = refused(capsys, *arguments)
    assert [message for message in messages if message not in error] == []


def test_an_unknown_dataset_is_named(two_models: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("951", "Dataset951_Nothing", "nothing"):
        assert main(["find-best", name, *BOTH, "--metric", "dice"]) == 1
        assert name in capsys.readouterr().err.splitlines()[-1]


def test_fold_all_is_no_cross_validation(two_models: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        find_best("--metric", "dice", "-f", "all")
    assert "fold all" in capsys.readouterr().err
