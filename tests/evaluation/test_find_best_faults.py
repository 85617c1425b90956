"""find-best over damaged files: what is at fault is named, and kept scores are taken only while they are true."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nnunet_models import SHAPE, Experiment, _write, shifted, with_holes

from nnunet_topo.cli.__main__ import main
from nnunet_topo.evaluation import score_predictions

HOLED, SHIFTED = "nnUNetTrainer__nnUNetPlans__3d_fullres", "nnUNetTrainerTopo__nnUNetPlans__3d_fullres"
MERGED = "crossval_results_folds_0_1"


@pytest.fixture
def two_models(experiment: Callable[..., Experiment]) -> Experiment:
    made = experiment()
    made.write_truth()
    made.train("nnUNetTrainer", with_holes)
    made.train("nnUNetTrainerTopo", shifted)
    return made


def find_best(*arguments: str) -> int:
    trainers = ("nnUNetTrainer", "nnUNetTrainerTopo")
    models = ("-tr", *trainers, "-c", "3d_fullres", "-f", "0", "1", "-np", "1")
    return main(["find-best", "950", *models, "--metric", "dice", *arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert find_best(*arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    return error


@pytest.mark.parametrize("damage", ["missing", "no image", "cut off", "another shape"])
def test_a_damaged_ground_truth_is_not_blamed_on_the_predictions(
    two_models: Experiment, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    file = two_models.labels / "c2.nii.gz"
    content = file.read_bytes()
    file.unlink()
    if damage == "another shape":
        _write(file, np.zeros((3, 4, 5), np.uint8))
    elif damage != "missing":
        file.write_bytes(content[: len(content) // 2] if damage == "cut off" else b"")
    error = refused(capsys, "--disable_ensembling")
    assert "c2" in error
    assert "Validate" not in error
    if damage == "another shape":
        assert f"expected the shape {(3, 4, 5)} of the ground truth, got {SHAPE}" in error
    else:
        assert str(file if damage != "missing" else file.parent) in error
        assert "Restore" in error


@pytest.mark.parametrize("ending", [".npz", ".pkl"])
@pytest.mark.parametrize("content", [b"", None], ids=["empty", "cut off"])
def test_broken_probabilities_are_named_by_file(
    two_models: Experiment, capsys: pytest.CaptureFixture[str], ending: str, content: bytes | None
) -> None:
    # nnU-Net reads the properties of the first model alone.
    file = two_models.model_folder("nnUNetTrainer") / "fold_1" / "validation" / f"c3{ending}"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    error = refused(capsys)
    assert str(file) in error
    assert "Validate the fold again" in error


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("model/dataset.json", {"labels": {"background": 0, "sheet": 1}, "channel_names": {"0": "CT"}}),
        ("model/dataset.json", []),
        ("model/plans.json", {}),
        ("preprocessed/nnUNetPlans.json", {}),
        ("preprocessed/nnUNetPlans.json", []),
        ("preprocessed/nnUNetPlans.json", {"configurations": ["3d_fullres"]}),
    ],
)
def test_a_damaged_description_is_named(
    two_models: Experiment, capsys: pytest.CaptureFixture[str], place: str, content: object
) -> None:
    folder, name = place.split("/")
    file = (two_models.preprocessed if folder == "preprocessed" else two_models.results / HOLED) / name
    file.write_text(json.dumps(content))
    assert str(file) in refused(capsys)
    assert list(two_models.results.rglob("crossval_results*")) == []


@pytest.fixture
def scored(two_models: Experiment, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Chooses once; each call chooses again with --no_overwrite, and gives the models whose cases are scored anew."""
    folders: list[Path] = []
    original = score_predictions.evaluate_folders

    def counting(truth: Path, folder: Path, **settings: object) -> object:
        folders.append(folder)
        return original(truth, folder, **settings)

    monkeypatch.setattr(score_predictions, "evaluate_folders", counting)
    assert find_best("--disable_ensembling") == 0

    def again() -> list[str]:
        folders.clear()
        assert find_best("--disable_ensembling", "--no_overwrite") == 0
        return [folder.parent.name for folder in folders if folder.name == MERGED]

    return again


DAMAGED = ["{", "[]", "{}", "null", '{"metric_per_case": [{}]}', '{"metric_per_case": [], "foreground_mean": null}']


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_scores_are_made_again(two_models: Experiment, scored: Callable[[], list[str]], content: str) -> None:
    assert scored() == []
    (two_models.results / SHIFTED / MERGED / "summary_topo.json").write_text(content)
    assert scored() == [SHIFTED]


def later(file: Path) -> None:
    time = file.stat().st_mtime + 10
    os.utime(file, (time, time))


def describe_with_ignore_label(made: Experiment) -> None:
    dataset = {**made.dataset, "labels": {"background": 0, "sheet": 1, "ignore": 2}}
    (made.results / SHIFTED / "dataset.json").write_text(json.dumps(dataset))


def describe_another_label(made: Experiment) -> None:
    dataset = {**made.dataset, "labels": {"background": 0, "sheet": 1, "ink": 2}}
    (made.results / SHIFTED / "dataset.json").write_text(json.dumps(dataset))


def move_the_references(made: Experiment) -> None:
    """nnU-Net's raw labels come first; they may have another spacing than the copies."""
    place = made.root / "nnUNet_raw" / made.results.name / "labelsTr"
    place.parent.mkdir(parents=True)
    made.labels.rename(place)


CHANGES = {
    "a reference is newer": (lambda made: later(made.labels / "c1.nii.gz"), [HOLED, SHIFTED]),
    "the references lie elsewhere": (move_the_references, [HOLED, SHIFTED]),
    "an ignore label": (describe_with_ignore_label, [SHIFTED]),
    "another label": (describe_another_label, [SHIFTED]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_scores_of_other_labels_are_made_again(
    two_models: Experiment, scored: Callable[[], list[str]], change: str
) -> None:
    what, models = CHANGES[change]
    assert scored() == []
    what(two_models)
    assert scored() == models
