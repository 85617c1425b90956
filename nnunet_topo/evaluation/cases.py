"""Reading one case: ground truth and prediction, with nnU-Net's own reader, checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_topo.data.check_case import read_volume
from nnunet_topo.data.labels import distinct_values
from nnunet_topo.data.raw import spacing_sidecar
from nnunet_topo.errors import DataError

LabelMap = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Case:
    """Where a case's files are.

    Attributes:
        name: file name without ending.
        ground_truth: segmentation that is right.
        prediction: segmentation to be judged.
    """

    name: str
    ground_truth: Path
    prediction: Path


@dataclass(frozen=True)
class CaseLabels:
    """What is in a case's files.

    Attributes:
        prediction: (X, Y, Z), or (X, Y) for a single slice, in the order of axes that nnU-Net works with.
        ground_truth: same shape.
        spacing_mm: one value per axis, same order.
        warnings: what a careful reader would want to know, such as differing spacings.
    """

    prediction: LabelMap
    ground_truth: LabelMap
    spacing_mm: tuple[float, ...]
    warnings: tuple[str, ...]


def read_case(case: Case, reader: type[Any], known_labels: frozenset[int] | None = None) -> CaseLabels:
    """Read both files of a case.

    Args:
        case: its files.
        reader: class of nnU-Net's reader.
        known_labels: values that may occur, the ignore label included; None for no check.

    Returns:
        Label maps on one grid. The spacing is the ground truth's; that of the prediction where a tif has none.

    Raises:
        DataError: a file is missing or damaged, the shapes differ, or a value is not a known label.
    """
    ground_truth, properties = read_labels(case.ground_truth, reader, known_labels)
    prediction, predicted_properties = read_labels(case.prediction, reader, known_labels)
    if prediction.shape != ground_truth.shape:
        raise DataError(
            f"prediction: expected the shape {ground_truth.shape} of the ground truth, got {prediction.shape}. "
            f"{case.prediction}. Predict on the image that belongs to it, without resampling or swapped axes."
        )
    known, predicted_known = _has_spacing(case.ground_truth, reader), _has_spacing(case.prediction, reader)
    spacing = (properties if known or not predicted_known else predicted_properties)["spacing"]
    warnings = _differences(properties, predicted_properties, spacings_known=known and predicted_known)
    if ground_truth.shape[0] == 1:
        ground_truth, prediction, spacing = ground_truth[0], prediction[0], spacing[1:]
    return CaseLabels(prediction, ground_truth, tuple(float(value) for value in spacing), tuple(warnings))


def read_labels(
    path: Path, reader: type[Any], known_labels: frozenset[int] | None = None
) -> tuple[LabelMap, Mapping[str, Any]]:
    """Read a segmentation.

    Args:
        path: of the file.
        reader: class of nnU-Net's reader.
        known_labels: values that may occur; None for no check.

    Returns:
        (X, Y, Z) integers (one slice for a 2-D file), and nnU-Net's properties, `spacing` among them.

    Raises:
        DataError: the file is missing or damaged, has several channels, or holds a value that is not a known label.
    """
    try:
        volume, properties = read_volume((path,), reader, "read_seg")
    except DataError as error:
        raise DataError(f"{path.name}: {error}. {path}. Restore the file, or predict the case again.") from error
    if volume.ndim != 4 or volume.shape[0] != 1 or not volume.size:
        raise DataError(f"{path.name}: expected one channel of labels, got an array {volume.shape}. {path}.")
    low, high = float(volume.min()), float(volume.max())
    if not np.isfinite([low, high]).all() or np.any(volume != np.rint(volume)):
        raise DataError(
            f"{path.name}: expected whole numbers, got other values (such as 0.5 or NaN). {path}. "
            "Write labels, not probabilities, and resample them with nearest neighbour only."
        )
    labels = volume[0].astype(np.min_scalar_type(int(high)) if low >= 0 else np.int64)
    if known_labels is not None:
        unknown = [value for value in distinct_values(labels) if value not in known_labels]
        if unknown:
            listed = ", ".join(map(str, unknown[:10])) + (", ..." if len(unknown) > 10 else "")
            raise DataError(
                f"{path.name}: expected only the labels {', '.join(map(str, sorted(known_labels)))}, got {listed}. "
                f"{path}. Correct the file, or declare the label in dataset.json."
            )
    return labels, properties


def _has_spacing(path: Path, reader: type[Any]) -> bool:
    """Whether the file's spacing is known: a tif has one only in the file beside it, and nnU-Net assumes 1 else."""
    if reader.__name__ != "Tiff3DIO":
        return True
    return spacing_sidecar(path.parent, path.name.rpartition(".")[0]).is_file()


def _differences(properties: Mapping[str, Any], predicted: Mapping[str, Any], *, spacings_known: bool) -> list[str]:
    """Differences that nnU-Net only warns of, too: the voxels are compared as they stand."""
    found = []
    if spacings_known and not np.allclose(properties["spacing"], predicted["spacing"]):
        expected, got = (tuple(round(float(value), 6) for value in item["spacing"]) for item in (properties, predicted))
        found.append(f"spacing: expected {expected} of the ground truth, got {got} in the prediction.")
    for stuff, names in {"sitk_stuff": ("origin", "direction"), "nibabel_stuff": ("original_affine",)}.items():
        for name in names if stuff in properties and stuff in predicted else ():
            if not np.allclose(properties[stuff][name], predicted[stuff][name], atol=1e-4):
                found.append(f"{name}: expected that of the ground truth, got another: they may not overlap.")
    return found
