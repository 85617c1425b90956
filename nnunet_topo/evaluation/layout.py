"""What two folders of segmentations hold: format, labels, and which files belong together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_topo.data.check import reader_of
from nnunet_topo.data.labels import declared_labels
from nnunet_topo.data.raw import read_object
from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.evaluation.cases import Case

Structure = int | tuple[int, ...]
"""A label, or the labels that a region unites."""


@dataclass(frozen=True)
class LabelSystem:
    """Which values label files hold and what is scored.

    Attributes:
        structures: what is scored, in nnU-Net's order.
        known: values that may occur, the ignore label included.
        ignore_label: voxels of this value in the ground truth are left out of every score.
    """

    structures: tuple[Structure, ...]
    known: frozenset[int]
    ignore_label: int | None


@dataclass(frozen=True)
class FolderPair:
    """Two folders, looked at from outside.

    Attributes:
        cases: that have a file in both folders, by name.
        without_prediction: those with ground truth alone.
        without_ground_truth: those with a prediction alone.
        reader: class of nnU-Net's reader.
        file_ending: such as `.nii.gz`.
    """

    cases: tuple[Case, ...]
    without_prediction: tuple[Case, ...]
    without_ground_truth: tuple[Case, ...]
    reader: type[Any]
    file_ending: str


def find_dataset_json(ground_truth: Path, prediction: Path) -> Path | None:
    """dataset.json of the prediction folder, of the ground truth's, or of their parents, in this order; None if none.

    nnU-Net puts a copy beside predictions; labelsTr and gt_segmentations have it in their parent folder.
    """
    for folder in (prediction, ground_truth, ground_truth.parent, prediction.parent):
        if (folder / "dataset.json").is_file():
            return folder / "dataset.json"
    return None


def load_dataset_json(source: str | os.PathLike[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    """Content of dataset.json, from its path or as it is.

    Raises:
        DataError: the file is missing or not a JSON object.
    """
    return source if isinstance(source, Mapping) else read_object(Path(source))


def label_system(content: Mapping[str, Any], ignore_label: int | None = None) -> LabelSystem:
    """Labels or regions as nnU-Net reads them from dataset.json.

    Args:
        content: of dataset.json.
        ignore_label: what the caller takes it for; None where dataset.json alone decides.

    Returns:
        Foreground labels, or regions where there are any.

    Raises:
        ConfigError: another ignore label was asked for than the one in dataset.json.
        DataError: nnU-Net would refuse these labels.
    """
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    known = declared_labels(content)
    try:
        manager = LabelManager(dict(content["labels"]), content.get("regions_class_order"))
    except (AssertionError, RuntimeError, TypeError) as error:
        raise DataError(f"labels: expected labels that nnU-Net accepts, got: {error} dataset.json.") from error
    if manager.has_regions:
        regions = (region if isinstance(region, tuple) else int(region) for region in manager.foreground_regions)
        structures: tuple[Structure, ...] = tuple(regions)
    else:
        structures = tuple(int(label) for label in manager.foreground_labels)
    if not structures:
        raise DataError("labels: expected at least one besides the background, got none. dataset.json.")
    if ignore_label not in (None, manager.ignore_label):
        raise ConfigError(
            f"ignore_label: expected that of dataset.json or preset ({manager.ignore_label}), got {ignore_label}. "
            "Leave it out, or correct the labels in dataset.json."
        )
    return LabelSystem(structures, known, manager.ignore_label)


def pair_folders(
    ground_truth: Path,
    prediction: Path,
    content: Mapping[str, Any] | None,
    *,
    cases: Sequence[str] | None = None,
) -> FolderPair:
    """Match the files of two folders by name.

    Args:
        ground_truth: folder of segmentations.
        prediction: folder of segmentations; files of other endings (plans.json, ...) mean nothing.
        content: of dataset.json; without it the file ending is the most frequent one in the ground truth folder.
        cases: names to look at; None for all.

    Returns:
        What is there.

    Raises:
        ConfigError: a folder does not exist.
        DataError: there is no ground truth, or no file that nnU-Net can read.
    """
    for name, folder in (("ground truth", ground_truth), ("prediction", prediction)):
        if not folder.is_dir():
            found = "a file" if folder.exists() else "no such folder"
            raise ConfigError(f"{name} folder: expected a folder, got {found}. {folder}. Check the path.")
    ending = _file_ending(ground_truth, content)
    expected, predicted = _names(ground_truth, ending), _names(prediction, ending)
    if cases is not None:
        expected, predicted = expected & set(cases), predicted & set(cases)
        expected |= set(cases) - predicted  # asked for, so missing in both is missing
    if not expected:
        raise DataError(
            f"ground truth folder: expected files *{ending}, got none. {ground_truth}. "
            "Check the path, and file_ending in dataset.json."
        )
    every = {
        name: Case(name, ground_truth / f"{name}{ending}", prediction / f"{name}{ending}")
        for name in sorted(expected | predicted)
    }
    reader = reader_of(
        {"file_ending": ending, **(content or {})}, (every[name].ground_truth for name in sorted(expected))
    )
    if reader is None:
        raise DataError(
            f"ground truth folder: expected files *{ending} that one of nnU-Net's readers opens, got none. "
            f"{ground_truth}. Check that they are intact."
        )
    return FolderPair(
        tuple(case for name, case in every.items() if name in expected and name in predicted),
        tuple(case for name, case in every.items() if name not in predicted),
        tuple(case for name, case in every.items() if name not in expected),
        reader,
        ending,
    )


def _names(folder: Path, ending: str) -> set[str]:
    return {
        path.name.removesuffix(ending)
        for path in folder.iterdir()
        if path.name.endswith(ending) and not path.name.startswith(".") and path.is_file()
    }


def _file_ending(folder: Path, content: Mapping[str, Any] | None) -> str:
    if content is not None and content.get("file_ending"):
        return str(content["file_ending"])
    from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

    endings = sorted({ending for reader in LIST_OF_IO_CLASSES for ending in reader.supported_file_endings})
    files = [path.name for path in folder.iterdir() if path.is_file()]
    counts = Counter(ending for name in files for ending in endings if name.endswith(ending))
    if not counts:
        raise DataError(
            f"ground truth folder: expected segmentations ({' '.join(endings)}), got none. {folder}. Check the path."
        )
    return counts.most_common(1)[0][0]
