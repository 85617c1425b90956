"""Datasets for the integration run: real ones linked in, and variants of synthetic ones."""

from __future__ import annotations

import json
import os
import shutil
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PLANS = "nnUNetPlans"


@dataclass(frozen=True)
class RealDataset:
    """A real dataset and the tiny configuration it is trained with.

    Attributes:
        name: nnU-Net's folder name.
        configuration: 2d or 3d_fullres.
        patch_size: voxels an axis, for blocks.
        whole_patch_size: the same for whole files: larger, so that few patches cover a file.
        block: (start, size) an axis of the block that is cut out of every case, in the order of the array in the file.
        test_images: folder that is predicted.
        why: what this dataset exercises.
    """

    name: str
    configuration: str
    patch_size: tuple[int, ...]
    whole_patch_size: tuple[int, ...]
    block: tuple[tuple[int, int], ...]
    test_images: str
    why: str

    @property
    def number(self) -> int:
        return int(self.name[7:10])


# The first block begins at a corner because the ignored rim lies there.
REAL = (
    RealDataset(
        "Dataset305_FIBSEMWalls3D", "3d_fullres", (32, 64, 64), (64, 64, 64), ((0, 64),) * 3, "imagesTs",
        "tif, ignore label"
    ),
    RealDataset(
        "Dataset302_VNCEM3D", "3d_fullres", (20, 64, 64), (20, 128, 128), ((0, 20), (64, 96), (64, 64)), "imagesTs",
        "two classes, anisotropic",
    ),
    RealDataset("Dataset311_DRIVE", "2d", (128, 128), (512, 512), ((192, 192), (192, 192)), "imagesTr", "2-D, RGB"),
)  # fmt: skip


def read_json(path: Path) -> Any:
    """Content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def training_cases(raw: Path) -> list[str]:
    """Names of the labelled cases of a raw dataset."""
    ending = read_json(raw / "dataset.json")["file_ending"]
    return sorted(path.name.removesuffix(ending) for path in (raw / "labelsTr").glob(f"*{ending}"))


def take_dataset(spec: RealDataset, source: Path, target: Path, *, limit: int | None, whole: bool) -> None:
    """Put a real dataset into a scratch nnUNet_raw: every file of it, or a block of every file.

    Args:
        spec: the dataset and its block.
        source: the dataset, read only.
        target: its place in nnUNet_raw; the images to predict go into its folder `predict`.
        limit: at most so many training cases; None for all.
        whole: link whole files instead of cutting blocks out, which takes much longer.
    """
    ending = read_json(source / "dataset.json")["file_ending"]
    cases = training_cases(source)[:limit]
    first_channel = f"_0000{ending}"
    images = sorted(
        path.name.removesuffix(first_channel) for path in (source / spec.test_images).glob(f"*{first_channel}")
    )
    chosen = [("imagesTr", "imagesTr", cases), ("labelsTr", "labelsTr", cases), (spec.test_images, "predict", images)]
    for origin, folder, names in chosen:
        (target / folder).mkdir(parents=True)
        for name in names:
            files = [source / origin / f"{name}{ending}", source / origin / f"{name}.json"]
            files += (source / origin).glob(f"{name}_[0-9][0-9][0-9][0-9]{ending}")
            for file in filter(Path.is_file, files):
                if whole or file.suffix == ".json":
                    os.symlink(file, target / folder / file.name)
                else:
                    _cut(file, target / folder / file.name, spec.block)
    write_json(target / "dataset.json", read_json(source / "dataset.json") | {"numTraining": len(cases)})


def _cut(source: Path, target: Path, block: tuple[tuple[int, int], ...]) -> None:
    """Copy a block of an image or label file, in the file's own format."""
    where = tuple(slice(start, start + size) for start, size in block)
    if source.suffix == ".tif":
        import tifffile

        tifffile.imwrite(target, tifffile.imread(source)[where], photometric="minisblack", metadata=None)
        return
    import SimpleITK

    # SimpleITK counts axes the other way round, and keeps spacing and origin of what is cut out.
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(source))[where[::-1]], str(target))


def write_two_folds(preprocessed: Path, cases: list[str]) -> None:
    """Write splits_final.json: two folds that validate every case once."""
    halves = cases[::2], cases[1::2]
    write_json(
        preprocessed / "splits_final.json",
        [{"train": halves[1 - fold], "val": halves[fold]} for fold in range(2)],
    )


def write_regions_dataset(source: Path, target: Path) -> None:
    """Copy a synthetic dataset with two nested regions instead of its one class.

    The inner region is the foreground of one half of the volume; an ignore label stays what it was.
    """
    shutil.copytree(source, target)
    description = read_json(source / "dataset.json")
    ignored = description["labels"].get("ignore")
    labels: dict[str, Any] = {"background": 0, "whole": [1, 2], "inner": [2]}
    if ignored is not None:
        labels["ignore"] = 3
    for path in sorted((target / "labelsTr").glob(f"*{description['file_ending']}")):
        _relabel(path, ignored)
    write_json(target / "dataset.json", description | {"labels": labels, "regions_class_order": [1, 2]})


def _relabel(path: Path, ignored: int | None) -> None:
    if path.suffix == ".tif":
        import tifffile

        tifffile.imwrite(path, _as_regions(tifffile.imread(path), ignored), photometric="minisblack", metadata=None)
        return
    import SimpleITK

    volume = SimpleITK.ReadImage(str(path))
    changed = SimpleITK.GetImageFromArray(_as_regions(SimpleITK.GetArrayFromImage(volume), ignored))
    changed.CopyInformation(volume)
    SimpleITK.WriteImage(changed, str(path))


def _as_regions(labels: np.ndarray, ignored: int | None) -> np.ndarray:
    changed = labels.copy()
    inner = np.zeros(labels.shape, dtype=bool)
    inner[: labels.shape[0] // 2] = True
    changed[(labels == 1) & inner] = 2
    if ignored is not None:
        changed[labels == ignored] = 3
    return changed


def add_cascade(plans_file: Path, patch_size: int) -> None:
    """Add a 3d_lowres configuration at half the resolution and the cascade to a plans file.

    nnU-Net plans them for large images only.
    """
    plans = read_json(plans_file)
    full = plans["configurations"]["3d_fullres"]
    low = deepcopy(full)
    low.update(
        data_identifier=f"{plans['plans_name']}_3d_lowres",
        spacing=[2 * value for value in full["spacing"]],
        median_image_size_in_voxels=[value / 2 for value in full["median_image_size_in_voxels"]],
        patch_size=[patch_size] * 3,
        batch_dice=False,
        next_stage="3d_cascade_fullres",
    )
    plans["configurations"]["3d_lowres"] = low
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    write_json(plans_file, plans)


def put_foreign_label(preprocessed: Path, data_identifier: str, value: int) -> Path:
    """Write one voxel of a label that dataset.json does not know into a preprocessed segmentation; returns the file."""
    import blosc2

    file = sorted((preprocessed / data_identifier).glob("*_seg.b2nd"))[0]
    array = blosc2.open(str(file), mode="r")[:]
    array[(0, *(size // 2 for size in array.shape[1:]))] = value
    blosc2.asarray(array, urlpath=str(file), mode="w")
    return file
