"""Volumes of the cases that a report shows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_topo.data.check_case import read_volume
from nnunet_topo.errors import DataError
from nnunet_topo.evaluation.cases import read_case
from nnunet_topo.evaluation.layout import find_dataset_json, label_system, load_dataset_json, pair_folders
from nnunet_topo.evaluation.report_scores import Row
from nnunet_topo.evaluation.report_views import CaseVolumes
from nnunet_topo.evaluation.score_case import structure_mask
from nnunet_topo.metrics.error_regions import error_regions


def load_volumes(row: Row, dataset: str, dataset_json: Mapping[str, Any]) -> CaseVolumes:
    """Label, prediction, image and errors of one row.

    Args:
        row: names case and label.
        dataset: folder name of the dataset, to look for the image.
        dataset_json: of the dataset; empty: the one beside the predictions or the labels.

    Raises:
        DataError: there are no labels, or a file is missing or damaged.
    """
    folder, truth = row.predictions.folder, row.predictions.ground_truth
    if truth is None:
        raise DataError(f"ground truth: expected a folder of labels, got none. {folder}. Give --ground-truth.")
    source = dataset_json or find_dataset_json(truth, folder)
    content = load_dataset_json(source) if source else None
    pair = pair_folders(truth, folder, content, cases=[row.case])
    if not pair.cases:
        raise DataError(f"case: expected label and prediction of {row.case}, got one of them. {truth} and {folder}.")
    labels = read_case(pair.cases[0], pair.reader)
    structures = {str(structure): structure for structure in label_system(content).structures} if content else {}
    structure = structures.get(row.label, int(row.label) if row.label.isdigit() else 1)
    ignore_label = label_system(content).ignore_label if content else row.predictions.ignore_label
    ground_truth, prediction = _deep(labels.ground_truth), _deep(labels.prediction)
    ignore = ground_truth == ignore_label if ignore_label is not None else np.zeros(ground_truth.shape, dtype=np.bool_)
    masks = [structure_mask(volume, structure) & ~ignore for volume in (prediction, ground_truth)]
    spacing = (*(1.0,) * (3 - len(labels.spacing_mm)), *labels.spacing_mm)
    return CaseVolumes(
        case=row.case,
        label=label_name(row.label, content or {}),
        truth=masks[1],
        prediction=masks[0],
        ignore=ignore,
        image=_image(row.case, dataset, pair.reader, pair.file_ending, ground_truth.shape),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        regions=tuple(error_regions(masks[0], masks[1])),
    )


def label_name(label: str, dataset_json: Mapping[str, Any]) -> str:
    """Name of a label or region as dataset.json has it, otherwise its number."""
    names = dataset_json.get("labels", {})
    found = (
        name for name, value in names.items() if label in (str(value), str(tuple(value) if _many(value) else value))
    )
    return str(next(found, f"label {label}"))


def _many(value: object) -> bool:
    return isinstance(value, (list, tuple))


def _deep(volume: NDArray[Any]) -> NDArray[Any]:
    return volume[None] if volume.ndim == 2 else volume


def _image(
    case: str, dataset: str, reader: type[Any], file_ending: str, shape: tuple[int, ...]
) -> NDArray[np.generic] | None:
    """First channel of the raw image, None where it is not to be had on the label's grid."""
    root = os.environ.get("nnUNet_raw")
    for folder in ("imagesTr", "imagesTs") if root else ():
        file = Path(str(root)) / dataset / folder / f"{case}_0000{file_ending}"
        if file.is_file():
            try:
                volume, _ = read_volume((file,), reader, "read_images")
            except DataError:
                return None
            return volume[0] if volume.shape[1:] == shape else None
    return None
