"""Checks of a raw dataset's files by name alone: which cases there are, and what each of them lacks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_topo.data.check_description import is_file_ending
from nnunet_topo.data.check_finding import Finding
from nnunet_topo.data.raw import case_identifier, spacing_sidecar

# Endings that some reader of nnU-Net knows, longest first.
IMAGE_ENDINGS = (".nii.gz", ".tiff", ".nrrd", ".gipl", ".nii", ".mha", ".mhd", ".tif", ".png", ".bmp", ".jpg")


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case.

    Attributes:
        name: identifier.
        images: one path per channel file, sorted.
        label: path of the label, None where there is none.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None


def list_cases(folder: Path, content: Mapping[str, Any]) -> tuple[list[CaseFiles], list[CaseFiles], list[Finding]]:
    """Cases of a raw dataset and what their names give away.

    Args:
        folder: the dataset's folder.
        content: of its dataset.json.

    Returns:
        Training cases, test cases, findings. A case whose label is missing has label None.
    """
    ending = content.get("file_ending")
    if not is_file_ending(ending):
        return [], [], []  # reported with dataset.json; without it no name of a file means anything
    findings: list[Finding] = []
    if isinstance(content.get("dataset"), Mapping):
        training = list(_listed_cases(folder, content["dataset"], findings))
    else:
        training = _cases_in_folders(folder, ending, findings)
    test = []
    if (folder / "imagesTs").is_dir():
        labels = folder / "labelsTs"
        for name, images in _images_by_case(folder / "imagesTs", ending, findings).items():
            label = labels / f"{name}{ending}"
            test.append(CaseFiles(name, images, label if label.is_file() else None))
    expected = content.get("numTraining")
    if isinstance(expected, int) and expected != len(training):
        message = f"numTraining: expected {len(training)}, the number of training cases, got {expected}."
        description = folder / "dataset.json"
        mend = f'Set "numTraining": {len(training)}, or bring back the missing cases.'
        findings.append(Finding("error", "number-of-cases", str(description), message, mend))
    if not training:
        message = f"expected images named CASE_0000{ending}, got none."
        mend = "Put the training images there, or correct file_ending in dataset.json."
        findings.append(Finding("error", "missing-image", str(folder / "imagesTr"), message, mend))
    return training, test, findings


def missing_channels(case: CaseFiles, ending: str) -> Iterator[Finding]:
    """A finding per channel file that is missing below the highest one present."""
    present = {int(path.name[-len(ending) - 4 : -len(ending)]) for path in case.images if _has_channel(path, ending)}
    for channel in sorted(set(range(max(present, default=-1))) - present):
        path = case.images[0].with_name(f"{case.name}_{channel:04d}{ending}")
        message = f"expected channel {channel} of {case.name}, got no file."
        yield Finding("error", "missing-channel", str(path), message, "Bring the file back, or remove the case.")


def missing_sidecars(case: CaseFiles, ending: str) -> Iterator[Finding]:
    """A finding per tif whose spacing nnU-Net would have to guess as 1, 1, 1."""
    files = [*case.images[:1], *([case.label] if case.label else [])]
    for path in files:
        sidecar = spacing_sidecar(path.parent, case.name)
        if path.name.endswith(ending) and not sidecar.is_file():
            message = f"expected the spacing of {path.name}, got no file: nnU-Net would assume 1, 1, 1."
            mend = f'Write {sidecar.name} with {{"spacing": [z, y, x]}} (also where it is [1, 1, 1]).'
            yield Finding("error", "missing-sidecar", str(sidecar), message, mend)


def _cases_in_folders(folder: Path, ending: str, findings: list[Finding]) -> list[CaseFiles]:
    images_folder, labels_folder = folder / "imagesTr", folder / "labelsTr"
    for part in (images_folder, labels_folder):
        if not part.is_dir():
            message = "expected this folder, got none."
            findings.append(Finding("error", "missing-folder", str(part), message, "Create and fill it."))
    images = _images_by_case(images_folder, ending, findings)
    labels: dict[str, Path] = {}
    for path in _files(labels_folder):
        found = _image_ending(path.name)
        if path.name.endswith(ending):
            labels[path.name[: -len(ending)]] = path
        elif found is not None:
            findings.append(_wrong_ending(path, found, ending))
    for name in sorted(labels.keys() - images.keys()):
        channel = re.fullmatch(r"(.+)_\d{4}", name)
        hint = f"Rename it to {channel.group(1)}{ending}: labels have no channel number." if channel else ""
        mend = hint or f"Add imagesTr/{name}_0000{ending}, or remove the label: nnU-Net leaves it out without a word."
        message = f"expected an image of case {name}, got none."
        findings.append(Finding("error", "missing-image", str(labels[name]), message, mend))
    cases = []
    for name, paths in images.items():
        if name not in labels:
            missing = labels_folder / f"{name}{ending}"
            message = f"expected the label of case {name}, got no file."
            findings.append(Finding("error", "missing-label", str(missing), message, "Add it, or remove the image."))
        cases.append(CaseFiles(name, paths, labels.get(name)))
    return cases


def _images_by_case(folder: Path, ending: str, findings: list[Finding]) -> dict[str, tuple[Path, ...]]:
    images: dict[str, list[Path]] = {}
    for path in _files(folder):
        name = case_identifier(path.name, ending)
        found = _image_ending(path.name)
        if name is not None:
            images.setdefault(name, []).append(path)
        elif path.name.endswith(ending):
            message = f"expected a name CASE_0000{ending} with a four-digit channel, got {path.name}."
            mend = f"Rename it to {path.name[: -len(ending)]}_0000{ending}."
            findings.append(Finding("error", "image-name", str(path), message, mend))
        elif found is not None:
            findings.append(_wrong_ending(path, found, ending))
    return {name: tuple(sorted(paths)) for name, paths in sorted(images.items())}


def _listed_cases(folder: Path, listed: Mapping[str, Any], findings: list[Finding]) -> Iterator[CaseFiles]:
    """Cases of a dataset.json that lists its files under `dataset`."""
    for name, entry in listed.items():
        if not _lists_files(entry):
            message = f"dataset: expected images and label of case {name}, got {entry!r}."
            mend = 'Write {"images": ["..."], "label": "..."} for every case.'
            findings.append(Finding("error", "dataset-json", str(folder / "dataset.json"), message, mend))
            continue
        images = tuple(folder / os.path.expandvars(path) for path in entry.get("images", []))
        label = folder / os.path.expandvars(entry["label"]) if entry.get("label") else None
        for path in [*images, label]:
            if path is None or not path.is_file():
                check = "missing-label" if path in (None, label) else "missing-image"
                message = f"expected a file of case {name} as dataset.json lists it, got none."
                mend = "Correct the path under 'dataset' in dataset.json, or bring the file back."
                findings.append(Finding("error", check, str(path or folder / "dataset.json"), message, mend))
        present = tuple(path for path in images if path.is_file())
        if present:
            yield CaseFiles(name, present, label if label is not None and label.is_file() else None)


def _lists_files(entry: Any) -> bool:
    """Whether an entry of `dataset` has the shape that nnU-Net reads; a label that is not there is another finding."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("label") or "", str):
        return False
    images = entry.get("images", [])
    return isinstance(images, list) and all(isinstance(path, str) for path in images)


def _wrong_ending(path: Path, found: str, ending: str) -> Finding:
    message = f"expected the ending {ending} of dataset.json, got {found}: nnU-Net does not see this file."
    mend = f"Convert it to {ending}, or correct file_ending in dataset.json. Images and labels need the same ending."
    return Finding("error", "file-ending", str(path), message, mend)


def _image_ending(name: str) -> str | None:
    return next((ending for ending in IMAGE_ENDINGS if name.lower().endswith(ending)), None)


def _has_channel(path: Path, ending: str) -> bool:
    return case_identifier(path.name, ending) is not None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
