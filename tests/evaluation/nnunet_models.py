"""Trained models as nnU-Net leaves them, with validation predictions made up here."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk

DATASET = "Dataset950_Sheets"
CASES = ("c0", "c1", "c2", "c3")
FOLDS = {0: CASES[:2], 1: CASES[2:]}
SHAPE = (20, 18, 22)
Labels = np.ndarray


def sheet(number: int) -> Labels:
    """A sheet of four voxels' thickness across the volume, at another height in each case."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4 + number : 8 + number, 2:-2, 2:-2] = 1
    return labels


def with_holes(labels: Labels) -> Labels:
    """Nearly all of it right, but full of holes through the sheet."""
    holed = labels.copy()
    holed[:, 4:-4:4, 4:-4:4] = 0
    return holed


def shifted(labels: Labels) -> Labels:
    """Topologically right, but a voxel off."""
    return np.roll(labels, 1, axis=0)


class Experiment:
    """nnU-Net's folders of a dataset.

    Attributes:
        root: holds nnUNet_raw, nnUNet_preprocessed and nnUNet_results.
    """

    def __init__(self, root: Path, labels: Mapping[str, object]) -> None:
        self.root = root
        self.dataset = {
            "channel_names": {"0": "CT"},
            "labels": labels,
            "numTraining": len(CASES),
            "file_ending": ".nii.gz",
        }
        if any(isinstance(value, list) for value in labels.values()):
            self.dataset["regions_class_order"] = [1, 2]
        self.plans = {
            "dataset_name": DATASET,
            "plans_name": "nnUNetPlans",
            "image_reader_writer": "SimpleITKIO",
            "label_manager": "LabelManager",
            "configurations": {
                # An empty architecture keeps nnU-Net from taking this for plans of an older version.
                "2d": {"architecture": {}},
                "3d_fullres": {"architecture": {}},
                "3d_lowres": {"architecture": {}, "next_stage": "3d_cascade_fullres"},
                "3d_cascade_fullres": {"architecture": {}, "previous_stage": "3d_lowres"},
            },
        }
        self.truth = {case: sheet(number) for number, case in enumerate(CASES)}
        for folder in (self.preprocessed, self.results, self.labels):
            folder.mkdir(parents=True)
        (self.preprocessed / "nnUNetPlans.json").write_text(json.dumps(self.plans))
        (self.preprocessed / "dataset.json").write_text(json.dumps(self.dataset))

    @property
    def preprocessed(self) -> Path:
        return self.root / "nnUNet_preprocessed" / DATASET

    @property
    def results(self) -> Path:
        return self.root / "nnUNet_results" / DATASET

    @property
    def labels(self) -> Path:
        return self.preprocessed / "gt_segmentations"

    def model_folder(self, trainer: str, configuration: str = "3d_fullres") -> Path:
        return self.results / f"{trainer}__nnUNetPlans__{configuration}"

    def write_truth(self) -> None:
        for case, labels in self.truth.items():
            _write(self.labels / f"{case}.nii.gz", labels)

    def train(
        self, trainer: str, predict: Callable[[Labels], Labels], configuration: str = "3d_fullres", sure: float = 0.6
    ) -> Path:
        """Write a model folder whose validation predicted `predict(truth)`, with that probability."""
        folder = self.model_folder(trainer, configuration)
        folder.mkdir()
        (folder / "plans.json").write_text(json.dumps(self.plans))
        (folder / "dataset.json").write_text(json.dumps(self.dataset))
        for fold, cases in FOLDS.items():
            validation = folder / f"fold_{fold}" / "validation"
            validation.mkdir(parents=True)
            for case in cases:
                labels = predict(self.truth[case])
                properties = _write(validation / f"{case}.nii.gz", labels)
                heads = max(2, int(labels.max()) + 1)
                probabilities = np.where(labels == np.arange(heads)[:, None, None, None], sure, 1 - sure)
                np.savez_compressed(validation / f"{case}.npz", probabilities=probabilities.astype(np.float32))
                (validation / f"{case}.pkl").write_bytes(pickle.dumps(properties))
        return folder


def _write(file: Path, labels: Labels) -> dict[str, object]:
    """Write a segmentation; returns nnU-Net's properties of it."""
    spacing, origin, direction = (0.5, 1.0, 3.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel())
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, file)
    return {"sitk_stuff": {"spacing": spacing, "origin": origin, "direction": direction}, "spacing": [3.0, 1.0, 0.5]}
