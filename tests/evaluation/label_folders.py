"""Folders of ground truth and predictions in every format that nnU-Net reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile
from numpy.typing import NDArray
from skimage.io import imsave

SPACING = (3.0, 1.0, 0.5)
SHAPE = (9, 11, 13)


def random_labels(seed: int, values: Sequence[int] = (0, 1), shape: Sequence[int] = SHAPE) -> NDArray[np.uint8]:
    """Blocks of random labels."""
    coarse = np.random.default_rng(seed).choice(np.array(values, np.uint8), size=[-(-size // 2) for size in shape])
    for axis, size in enumerate(shape):
        coarse = coarse.repeat(2, axis=axis).take(range(size), axis=axis)
    return coarse


def write_labels(path: Path, labels: NDArray[np.generic], spacing: Sequence[float] | None = SPACING) -> None:
    """Write (Z, Y, X) labels; with spacing None a tif gets no side-car."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, labels, compression="zlib")
        if spacing is not None:
            path.with_suffix(".json").write_text(json.dumps({"spacing": list(spacing)}))
    elif path.suffix == ".png":
        imsave(path, labels, check_contrast=False)
    else:
        image = sitk.GetImageFromArray(labels)
        if spacing is not None:
            image.SetSpacing([float(value) for value in spacing[::-1]])
        sitk.WriteImage(image, str(path), True)


class Folders:
    """Ground truth in `labelsTr`, predictions in `predictions`, and dataset.json above them."""

    def __init__(
        self, root: Path, labels: Mapping[str, object] | None, file_ending: str = ".nii.gz", **description: object
    ) -> None:
        self.root, self.ending = root, file_ending
        self.truth, self.predictions = root / "labelsTr", root / "predictions"
        for folder in (self.truth, self.predictions):
            folder.mkdir(parents=True)
        if labels is not None:
            content = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": file_ending, **description}
            (root / "dataset.json").write_text(json.dumps(content))

    def add(self, name: str, truth: NDArray[np.generic] | None, prediction: NDArray[np.generic] | None) -> None:
        """Write the files of a case; None leaves one out."""
        for folder, labels in ((self.truth, truth), (self.predictions, prediction)):
            if labels is not None:
                write_labels(folder / f"{name}{self.ending}", labels)

    def add_random(self, cases: int, values: Sequence[int] = (0, 1), truth_values: Sequence[int] = ()) -> None:
        """Cases a0, a1, ... of random labels."""
        for index in range(cases):
            truth = random_labels(2 * index, (*values, *truth_values))
            self.add(f"a{index}", truth, random_labels(2 * index + 1, values))
