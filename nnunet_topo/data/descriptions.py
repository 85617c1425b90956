"""nnU-Net's dataset.json and plans, read once and checked, so that a damaged one is an error that names the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunet_topo.data.labels import declared_labels
from nnunet_topo.data.raw import read_object
from nnunet_topo.errors import DataError

_RESTORE_DESCRIPTION = "Restore the file from the raw dataset."
_RESTORE_PLANS = "Restore the file, or plan the dataset again."


def read_dataset_json(path: Path) -> dict[str, Any]:
    """Content of a dataset.json with the keys that nnU-Net cannot do without: labels, file_ending and channels.

    Raises:
        DataError: no such file, no JSON object, or one of the keys is missing or of another kind.
    """
    content = read_object(path)
    try:
        declared_labels(content)
    except DataError as error:
        raise DataError(f"{error} {path}. {_RESTORE_DESCRIPTION}") from error
    ending, channels = content.get("file_ending"), content.get("channel_names", content.get("modality"))
    for key, fits, wanted, got in (
        ("file_ending", isinstance(ending, str) and ending != "", "a text such as '.tif'", ending),
        ("channel_names", isinstance(channels, Mapping), "a mapping of numbers to names", channels),
    ):
        if not fits:
            raise DataError(f"{key}: expected {wanted}, got {got!r}. {path}. {_RESTORE_DESCRIPTION}")
    return content


def read_plans_file(path: Path) -> dict[str, Any]:
    """Content of a plans file, its configurations checked as far as this package reads them.

    Raises:
        DataError: no such file, no JSON object, no configurations, or one that nnU-Net cannot have written.
    """
    plans = read_object(path)
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict) or not configurations:
        raise DataError(f"{path.name}: expected nnU-Net plans with configurations. {path}. {_RESTORE_PLANS}")
    for name, settings in configurations.items():
        for fault in _faults(name, settings, configurations):
            raise DataError(f"{path.name}: {name}: {fault} {path}. {_RESTORE_PLANS}")
    return plans


def _faults(name: str, settings: Any, configurations: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(settings, dict):
        yield f"expected a mapping of settings, got {settings!r}."
        return
    for key, kind, wanted in (("data_identifier", str, "a text"), ("architecture", dict, "a mapping")):
        if key in settings and not isinstance(settings[key], kind):
            yield f"{key}: expected {wanted}, got {settings[key]!r}."
    for key in ("patch_size", "spacing"):
        if key in settings and not _positive(settings[key]):
            yield f"{key}: expected a list of numbers > 0, got {settings[key]!r}."
    if {"patch_size", "spacing"} <= settings.keys() and len(settings["spacing"]) < len(settings["patch_size"]):
        yield f"spacing: expected a value for each axis of patch_size, got {settings['spacing']!r}."
    visited = [name]
    while isinstance(settings, dict) and "inherits_from" in settings:
        parent = settings["inherits_from"]
        if not isinstance(parent, str) or parent not in configurations or parent in visited:
            yield f"inherits_from: expected another configuration of these plans, without a circle, got {parent!r}."
            return
        visited.append(parent)
        settings = configurations[parent]


def _positive(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 for value in values
    )
