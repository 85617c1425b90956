"""find-best on models that were trained here: the metric decides, and what it prints runs as printed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_topo.cli.__main__ import main
from nnunet_topo.training.trainers import nnUNetTrainerTopo, nnUNetTrainerTopoProgressive

pytestmark = pytest.mark.slow

TRAINERS = (nnUNetTrainerTopo, nnUNetTrainerTopoProgressive)
RECIPE = {
    "name": "short",
    "epochs": 1,
    "iterations_per_epoch": 1,
    "validation_iterations": 1,
    "phases": [{"from": 0, "weights": {"dice": 1.0}}],
}
Labels = np.ndarray


def holed(truth: Labels) -> Labels:
    """Nearly all of it right, but with holes through the rod."""
    labels = truth.copy()
    labels[7:-7:4][:, np.flatnonzero(truth.any((0, 2)))[1:-1:3]] = 0
    return labels


def off(truth: Labels) -> Labels:
    """Whole, but a voxel off."""
    return np.roll(truth, 1, axis=1)


def half(truth: Labels, first: bool) -> Labels:
    return np.where((np.arange(32) < 16)[:, None, None] == first, truth, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def threads() -> Any:
    """nnU-Net's process pools as threads: starting processes takes longer than all the rest."""
    context = SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=ThreadPool))
    with pytest.MonkeyPatch.context() as patch:
        for module in (
            "training.nnUNetTrainer.nnUNetTrainer",
            "evaluation.evaluate_predictions",
            "ensembling.ensemble",
            "postprocessing.remove_connected_components",
        ):
            patch.setattr(f"nnunetv2.{module}.multiprocessing", context)
        # What nnU-Net prints as -np, and what our hook takes.
        patch.setattr("nnunetv2.evaluation.find_best_configuration.default_num_processes", 1)
        patch.setattr("nnunet_topo.training.validation.default_num_processes", 1)
        yield


@pytest.fixture
def trained(nnunet: Path, make_trainer: Callable[..., Any], threads: Any) -> list[Path]:
    """Model folders of two trainers, fold 0 trained and validated with --npz."""
    folders = []
    for trainer_class in TRAINERS:
        trainer = make_trainer(trainer_class, recipe=RECIPE)
        trainer.run_training()
        trainer.perform_actual_validation(save_probabilities=True)
        folders.append(Path(trainer.output_folder_base))
        for name, content in (("plans.json", trainer.plans_manager.plans), ("dataset.json", trainer.dataset_json)):
            (folders[-1] / name).write_text(json.dumps(content))
    return folders


def replace_predictions(folder: Path, truths: Path, predict: Callable[[Labels], Labels], background: float) -> None:
    """Make the validation say something else; `background` is the probability with which it says background."""
    for file in (folder / "fold_0" / "validation").glob("*.nii.gz"):
        image = sitk.ReadImage(truths / file.name)
        labels = predict(sitk.GetArrayFromImage(image))
        changed = sitk.GetImageFromArray(labels)
        changed.CopyInformation(image)
        sitk.WriteImage(changed, file)
        foreground = np.where(labels == 1, 0.9, 1 - background)
        probabilities = np.stack([1 - foreground, foreground]).astype(np.float32)
        np.savez_compressed(file.with_name(file.name.replace(".nii.gz", ".npz")), probabilities=probabilities)


def best(metric: str) -> list[str]:
    """Trainers that find-best chooses by a metric."""
    names = [trainer.__name__ for trainer in TRAINERS]
    assert main(["find-best", "901", "-tr", *names, "-c", "3d_fullres", "-f", "0", "-np", "1", "--metric", metric]) == 0
    results = Path(os.environ["nnUNet_results"]) / "Dataset901_plain"
    found = json.loads((results / "inference_information.json").read_text())
    assert found["metric"] == metric
    return [model["trainer"] for model in found["best_model_or_ensemble"]["selected_model_or_models"]]


def run_as_printed(folder: Path, images: Path) -> list[str]:
    """Run the commands of inference_instructions.txt in `folder`, whose INPUT_FOLDER holds one image; their names."""
    instructions = Path(os.environ["nnUNet_results"]) / "Dataset901_plain" / "inference_instructions.txt"
    commands = [line for line in instructions.read_text().splitlines() if line.startswith("nnUNetv2_")]
    (folder / "INPUT_FOLDER").mkdir(parents=True)
    shutil.copy(images / "c0_0000.nii.gz", folder / "INPUT_FOLDER")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in commands:
        # This machine may have no GPU, and has few cores.
        extra = " -device cpu -npp 0 -nps 0" if command.startswith("nnUNetv2_predict") else ""
        environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(
            command + extra, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
    for name in ("OUTPUT_FOLDER", "OUTPUT_FOLDER_PP"):
        assert (folder / name / "c0.nii.gz").is_file(), f"no prediction in {name}"
    return [command.split()[0] for command in commands]


def test_the_metric_decides_and_the_commands_run(
    trained: list[Path], preprocessed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truths = preprocessed / "nnUNet_preprocessed" / "Dataset901_plain" / "gt_segmentations"
    images = preprocessed / "nnUNet_raw" / "Dataset901_plain" / "imagesTr"
    # The first one is surer, so that the ensemble says what it says.
    replace_predictions(trained[0], truths, holed, background=0.95)
    replace_predictions(trained[1], truths, off, background=0.6)
    assert best("dice") == ["nnUNetTrainerTopo"]
    assert best("leaderboard") == ["nnUNetTrainerTopoProgressive"]
    commands = run_as_printed(tmp_path / "single", images)
    assert commands == ["nnUNetv2_predict", "nnUNetv2_apply_postprocessing"]

    for number, folder in enumerate(trained):
        # Each finds one half and is undecided about the other.
        replace_predictions(folder, truths, lambda truth, number=number: half(truth, number == 0), background=0.52)
    assert best("leaderboard") == [trainer.__name__ for trainer in TRAINERS]
    commands = run_as_printed(tmp_path / "ensemble", images)
    assert commands == [*["nnUNetv2_predict"] * 2, "nnUNetv2_ensemble", "nnUNetv2_apply_postprocessing"]
