"""A tiny preprocessed dataset, made through nnU-Net's own planner and preprocessor but without its process pools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

CASES = 4
SIZE = 32
LABELS: dict[str, dict[str, Any]] = {
    "plain": {"background": 0, "tube": 1},
    "ignore": {"background": 0, "tube": 1, "ignore": 2},
    "classes": {"background": 0, "shell": 1, "core": 2},
    "regions": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
}


def _label_map(kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.zeros((SIZE, SIZE, SIZE), np.uint8)
    row, column = rng.integers(8, 24, 2)
    labels[4:28, row - 3 : row + 3, column - 3 : column + 3] = 1
    if kind in ("classes", "regions"):
        labels[4:28, row - 1 : row + 1, column - 1 : column + 1] = 2
    if "ignore" in LABELS[kind]:
        labels[:, :5] = LABELS[kind]["ignore"]
    return labels


def write_raw_dataset(folder: Path, kind: str) -> None:
    """Write an nnU-Net raw dataset of `CASES` cubes with a bright square rod each."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in range(CASES):
        labels = _label_map(kind, case)
        rng = np.random.default_rng(100 + case)
        image = (labels == 1) * 2.0 + (labels == 2) + rng.normal(0, 0.5, labels.shape)
        sitk.WriteImage(sitk.GetImageFromArray(image.astype(np.float32)), folder / "imagesTr" / f"c{case}_0000.nii.gz")
        sitk.WriteImage(sitk.GetImageFromArray(labels), folder / "labelsTr" / f"c{case}.nii.gz")
    dataset: dict[str, Any] = {
        "channel_names": {"0": "microscopy"},
        "labels": LABELS[kind],
        "numTraining": CASES,
        "file_ending": ".nii.gz",
    }
    if kind == "regions":
        dataset["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(dataset))


def preprocess(name: str) -> None:
    """Plan and preprocess the 3d_fullres configuration of a raw dataset, with a network of a few features."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    raw, target = Path(str(nnUNet_raw)) / name, Path(str(nnUNet_preprocessed)) / name
    (target / "gt_segmentations").mkdir(parents=True)
    statistics = {"max": 4, "mean": 1, "median": 1, "min": -1, "percentile_00_5": -1, "percentile_99_5": 3, "std": 1}
    fingerprint = {
        "spacings": [[1, 1, 1]] * CASES,
        "shapes_after_crop": [[SIZE] * 3] * CASES,
        "foreground_intensity_properties_per_channel": {"0": statistics},
        "median_relative_size_after_cropping": 1.0,
    }
    (target / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    ExperimentPlanner(name).plan_experiment()
    dataset = json.loads((raw / "dataset.json").read_text())
    plans_file = target / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration.update(patch_size=[16, 16, 16], batch_size=2)
    arch = configuration["architecture"]["arch_kwargs"]
    arch.update(
        n_stages=3,
        features_per_stage=[4, 8, 16],
        strides=[[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        kernel_sizes=[[3, 3, 3]] * 3,
        n_conv_per_stage=[1, 1, 1],
        n_conv_per_stage_decoder=[1, 1],
    )
    plans_file.write_text(json.dumps(plans))
    manager = PlansManager(plans)
    settings = manager.get_configuration("3d_fullres")
    folder = target / settings.data_identifier
    folder.mkdir(exist_ok=True)
    preprocessor = settings.preprocessor_class(verbose=False)
    for case in range(CASES):
        image, label = raw / "imagesTr" / f"c{case}_0000.nii.gz", raw / "labelsTr" / f"c{case}.nii.gz"
        preprocessor.run_case_save(str(folder / f"c{case}"), [str(image)], str(label), manager, settings, dataset)
        (target / "gt_segmentations" / label.name).write_bytes(label.read_bytes())
    folds = [{"train": ["c0", "c1"], "val": ["c2", "c3"]}, {"train": ["c2", "c3"], "val": ["c0", "c1"]}]
    (target / "splits_final.json").write_text(json.dumps(folds))


@pytest.fixture(scope="session")
def preprocessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root with nnUNet_raw and nnUNet_preprocessed holding one dataset for every kind, numbered from 901."""
    root = tmp_path_factory.mktemp("nnunet")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / variable).mkdir()
            patch.setenv(variable, str(root / variable))
        for number, kind in enumerate(LABELS, start=901):
            write_raw_dataset(root / "nnUNet_raw" / f"Dataset{number}_{kind}", kind)
            preprocess(f"Dataset{number}_{kind}")
    return root


@pytest.fixture
def figures() -> None:
    """Asked for by a test that wants the figures of an epoch, which take longer than its steps."""


@pytest.fixture
def nnunet(preprocessed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """nnU-Net's environment with a results folder of its own for every test; returns the results folder."""
    if "figures" not in request.fixturenames:
        monkeypatch.setattr("nnunetv2.training.logging.nnunet_logger.LocalLogger.plot_progress_png", lambda *_: None)
        monkeypatch.setattr("nnunet_topo.training.trainers.draw_progress", lambda *_, **__: None)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(variable, str(preprocessed / variable))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_compile", "f")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.delenv("NNUNET_TOPO_RECIPE", raising=False)
    torch.set_num_threads(1)
    return tmp_path / "results"


@pytest.fixture
def make_trainer(nnunet: Path, preprocessed: Path) -> Callable[..., Any]:
    """Factory: `make_trainer(cls, kind="plain", fold=0, continue_training=False, recipe={...})`."""

    def make(
        cls: type,
        kind: str = "plain",
        *,
        fold: int = 0,
        continue_training: bool = False,
        recipe: dict[str, Any] | None = None,
    ) -> Any:
        number = 901 + list(LABELS).index(kind)
        folder = preprocessed / "nnUNet_preprocessed" / f"Dataset{number}_{kind}"
        plans = json.loads((folder / "nnUNetPlans.json").read_text())
        plans["continue_training"] = continue_training
        if recipe is not None:
            plans["nnunet_topo"] = {"recipe": recipe}
        dataset = json.loads((folder / "dataset.json").read_text())
        return cls(plans, "3d_fullres", fold, dataset, torch.device("cpu"))

    return make
