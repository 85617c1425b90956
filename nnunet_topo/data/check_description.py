"""Checks of dataset.json alone: keys, label values, the ignore label."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from nnunet_topo.data.check_finding import Finding, Severity
from nnunet_topo.data.labels import declared_labels
from nnunet_topo.errors import DataError

_REQUIRED = {
    "labels": 'Add "labels": {"background": 0, "surface": 1}, and "ignore": 2 if voxels are unlabelled.',
    "file_ending": 'Add "file_ending": ".tif" (or .nii.gz, .png, ...).',
    "numTraining": "Add the number of cases in imagesTr.",
}
_MEANS_UNLABELLED = re.compile(r"un-?_?labell?ed|un-?_?annotated|dont_?care|void|unknown", re.IGNORECASE)


def check_description(path: Path, content: Mapping[str, Any]) -> list[Finding]:
    """Findings about dataset.json that need no other file.

    Args:
        path: of dataset.json.
        content: what it holds.

    Returns:
        The findings; an empty list means that nnU-Net's label handling accepts it.
    """
    return [Finding(severity, check, str(path), message, mend) for severity, check, message, mend in _all(content)]


def is_file_ending(value: Any) -> TypeGuard[str]:
    """Whether a value of file_ending means something to nnU-Net."""
    return isinstance(value, str) and value.startswith(".")


_Item = tuple[Severity, str, str, str]


def _all(content: Mapping[str, Any]) -> Iterator[_Item]:
    for key, mend in _REQUIRED.items():
        if key not in content:
            yield "error", "dataset-json", f"{key}: expected this key, got none.", mend
    channels = content.get("channel_names", content.get("modality"))
    if not isinstance(channels, Mapping) or not channels:
        mend = 'Add "channel_names": {"0": "CT"}; the name CT selects CT normalisation.'
        yield "error", "dataset-json", f"channel_names: expected a mapping, got {channels!r}.", mend
    elif set(channels) != {str(index) for index in range(len(channels))}:
        numbers = ", ".join(map(str, channels))
        mend = 'Number the channels "0", "1", ... without a gap.'
        yield "error", "dataset-json", f"channel_names: expected keys 0 to {len(channels) - 1}, got {numbers}.", mend
    if "file_ending" in content and not is_file_ending(content["file_ending"]):
        got = f"file_ending: expected a dot and letters, got {content['file_ending']!r}."
        yield "error", "file-ending", got, "Write it as '.tif'."
    number = content.get("numTraining", 0)
    if isinstance(number, bool) or not isinstance(number, int):
        yield "error", "dataset-json", f"numTraining: expected an integer, got {number!r}.", "Give the number of cases."
    if "labels" in content:
        yield from _labels(content)


def _labels(content: Mapping[str, Any]) -> Iterator[_Item]:
    try:
        declared_labels(content)
    except DataError as error:
        mend = 'Write labels as {"background": 0, "surface": 1}: names first, integers (or lists of them) second.'
        yield "error", "dataset-json", str(error), mend
        return
    labels = content["labels"]
    if labels.get("background") != 0 or isinstance(labels.get("background"), bool):
        got = labels.get("background", "no such label")
        yield "error", "dataset-json", f"labels: expected 'background' to be 0, got {got}.", 'Declare "background": 0.'
    regular = {name: value for name, value in labels.items() if name != "ignore"}
    values = sorted(declared_labels({"labels": regular})) if regular else []
    if values != list(range(len(values))):
        mend = "nnU-Net needs 0, 1, 2, ... without a gap: renumber the label files and dataset.json."
        yield "error", "dataset-json", f"labels: expected consecutive values from 0, got {values}.", mend
    yield from _ignore(labels, regular, values)
    regions = sum(isinstance(value, (list, tuple)) and len(value) > 1 for value in regular.values())
    foreground = sum(value not in (0, [0]) for value in regular.values())
    order = content.get("regions_class_order")
    if regions and (not isinstance(order, (list, tuple)) or len(order) != foreground):
        mend = "List one label value per region, in the order in which they are painted over each other."
        message = f"regions_class_order: expected {foreground} values, as many as regions, got {order!r}."
        yield "error", "dataset-json", message, mend


def _ignore(labels: Mapping[str, Any], regular: Mapping[str, Any], values: list[int]) -> Iterator[_Item]:
    if "ignore" in labels:
        value = labels["ignore"]
        highest = max(values, default=0)
        if isinstance(value, (list, tuple)):
            mend = f'Write "ignore": {highest + 1}.'
            yield "error", "ignore-label", f"ignore: expected one integer, got {value!r}.", mend
        elif value != highest + 1:
            message = f"ignore: expected {highest + 1}, one more than the highest other label, got {value}."
            mend = (
                f'Set "ignore": {highest + 1} in dataset.json. Where unlabelled voxels of the label files hold another '
                f"value, renumber them to {highest + 1}."
            )
            yield "error", "ignore-label", message, mend
        return
    for name, value in regular.items():
        mend = f'Rename the key: "ignore": {value}. Otherwise these voxels are trained as a class of their own.'
        if re.sub(r"[^a-z]", "", name.lower()).startswith("ignor"):
            message = f"labels: expected the key to be exactly 'ignore', got {name!r}."
            yield "error", "ignore-label", message, mend
        elif _MEANS_UNLABELLED.fullmatch(name):
            message = f"labels: {name!r} sounds like voxels that nobody labelled, but it is declared as a class."
            yield "error", "ignore-label", message, f"{mend} If they are a class, give it another name."
