"""Checks of what nnU-Net preprocessed: cases that are missing, unreadable, or hold undeclared labels."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_topo.data.check_finding import Finding
from nnunet_topo.data.descriptions import read_plans_file
from nnunet_topo.data.intact import check_intact
from nnunet_topo.data.labels import OUTSIDE_CROP, declared_labels, scan_preprocessed
from nnunet_topo.data.raw import read_json, read_object
from nnunet_topo.data.thickness import thickness_findings
from nnunet_topo.errors import ConfigError, DataError, nearest

_FOLDS = 5  # that nnU-Net makes where there is no splits_final.json
_AGAIN = "Preprocess again: nnUNetv2_preprocess (or nnUNetv2_plan_and_preprocess)."


def check_preprocessed(
    folder: Path,
    dataset_json: Mapping[str, Any],
    *,
    plans_name: str | None,
    configurations: Sequence[str] | None,
    raw_cases: Collection[str] | None,
    processes: int,
    thickness_mm: Mapping[int, Sequence[float]] | None = None,
) -> list[Finding]:
    """Findings about one preprocessed dataset.

    Args:
        folder: `$nnUNet_preprocessed/DatasetXXX_Name`.
        dataset_json: content of the raw dataset.json, or of the preprocessed one where there is no raw dataset.
        plans_name: as in `nnUNetPlans`; None for all plans in the folder.
        configurations: names to look at; None for those of the plans that were preprocessed. Before any was, thickness
            is compared with all.
        raw_cases: training cases of the raw dataset; None when it is not there.
        processes: files read at once.
        thickness_mm: typical thickness of each foreground label, one number a raw case; None when there are none.

    Returns:
        The findings.

    Raises:
        ConfigError: the plans, or a configuration, do not exist.
    """
    require_configurations(folder, plans_name, configurations)
    findings = _check_description(folder / "dataset.json", dataset_json)
    identifiers: dict[str, str] = {}
    for path in _plans(folder, plans_name):
        try:
            plans = read_plans_file(path)
        except DataError as error:
            findings.append(Finding("error", "unreadable", str(path), str(error), "Plan again."))
            continue
        own = _data_identifiers(plans)
        identifiers.update(own)
        looked_at = configurations or [name for name in own if (folder / own[name]).is_dir()] or list(own)
        settings = {name: plans["configurations"][name] for name in own if name in looked_at}
        findings += thickness_findings(settings, str(path), thickness_mm or {}, label_names(dataset_json))
    for identifier in dict.fromkeys(identifiers[name] for name in configurations or identifiers):
        data = folder / identifier
        if data.is_dir():
            findings += _check_folder(data, dataset_json, raw_cases, processes)
        elif configurations is not None:
            message = "expected the preprocessed data of this configuration, got no such folder."
            findings.append(Finding("error", "missing-preprocessed", str(data), message, _AGAIN))
    cases = dataset_json.get("numTraining") if raw_cases is None else len(raw_cases)
    findings += _check_splits(folder / "splits_final.json", raw_cases, cases)
    return findings


def require_configurations(folder: Path, plans_name: str | None, configurations: Sequence[str] | None) -> None:
    """Refuse names of plans and configurations that do not exist, before any case is read.

    Raises:
        ConfigError: the plans, or a configuration, do not exist.
    """
    known: list[str] = []
    for path in _plans(folder, plans_name):
        # Plans that cannot be read are a finding, not a wrong argument.
        with contextlib.suppress(DataError):
            known += _data_identifiers(read_plans_file(path))
    for name in configurations or ():
        if name not in known:
            valid = ", ".join(dict.fromkeys(known)) or "none"
            hint = nearest(name, known)
            raise ConfigError(f"configuration: expected one of the plans' ({valid}), got {name!r}. {folder}.{hint}")


def label_names(dataset_json: Mapping[str, Any]) -> dict[int, str]:
    """Names of the labels by value; a value that only regions hold has none."""
    labels = dataset_json.get("labels") or {}
    return {value: name for name, value in labels.items() if isinstance(value, int)}


def _check_description(path: Path, raw_description: Mapping[str, Any]) -> list[Finding]:
    """The trainer reads the copy that lies beside the preprocessed data, not the raw dataset's."""
    if not path.is_file():
        return []
    try:
        copy = read_object(path)
    except DataError as error:
        return [Finding("error", "dataset-json", str(path), str(error), _AGAIN)]
    findings = []
    for key in ("labels", "channel_names", "regions_class_order", "file_ending"):
        if copy.get(key) != raw_description.get(key):
            message = f"{key}: expected {raw_description.get(key)} as in the raw dataset.json, got {copy.get(key)}."
            findings.append(Finding("error", "stale-preprocessed", str(path), message, _AGAIN))
    return findings


def _plans(folder: Path, plans_name: str | None) -> list[Path]:
    if plans_name is None:
        return sorted(folder.glob("*Plans*.json"))
    path = folder / f"{plans_name}.json"
    if not path.is_file():
        known = [other.stem for other in folder.glob("*Plans*.json")]
        valid = ", ".join(sorted(known)) or "none"
        raise ConfigError(f"plans: expected one of {valid}, got {plans_name!r}. {folder}.{nearest(plans_name, known)}")
    return [path]


def _data_identifiers(plans: Mapping[str, Any]) -> dict[str, str]:
    """Folder name of each configuration, inherited where it is not written."""
    known = plans["configurations"]
    identifiers = {}
    for name, settings in known.items():
        while "data_identifier" not in settings and "inherits_from" in settings:
            settings = known[settings["inherits_from"]]
        if "data_identifier" in settings:
            identifiers[name] = settings["data_identifier"]
    return identifiers


def _check_folder(
    folder: Path, dataset_json: Mapping[str, Any], raw_cases: Collection[str] | None, processes: int
) -> list[Finding]:
    images = {path.name.removesuffix(path.suffix) for path in folder.iterdir() if path.suffix in (".b2nd", ".npz")}
    cases = {name for name in images if not (name.endswith("_seg") and name.removesuffix("_seg") in images)}
    findings = []
    complete = set()
    for case in sorted(cases):
        segmentation = _segmentation(folder, case)
        needed = [folder / f"{case}.pkl", segmentation]
        missing = [path for path in needed if not path.is_file()]
        for path in missing:
            message = "expected this file beside the preprocessed image, got none."
            findings.append(Finding("error", "missing-preprocessed", str(path), message, _AGAIN))
        if segmentation not in missing:
            complete.add(case)
    for case in sorted(set(raw_cases or ()) - cases):
        message = f"expected case {case} of the raw dataset, got no file."
        findings.append(Finding("error", "missing-preprocessed", str(folder / f"{case}.b2nd"), message, _AGAIN))
    for case in sorted(cases - set(raw_cases) if raw_cases is not None else ()):
        message = f"case {case} is not in the raw dataset any more, but would still be trained on."
        findings.append(
            Finding("warning", "stale-preprocessed", str(_segmentation(folder, case)), message, "Delete its files.")
        )
    faults = check_intact(folder, sorted(cases), processes=processes)
    findings += faults
    unread = {fault.file for fault in faults if fault.check == "unreadable"}
    complete = {case for case in complete if str(_segmentation(folder, case)) not in unread}
    try:
        values, unreadable = scan_preprocessed(folder, complete, processes=processes)
        known = declared_labels(dataset_json) | {OUTSIDE_CROP}
    except DataError as error:
        return [*findings, Finding("error", "unreadable", str(folder), str(error), _AGAIN)]
    for case, reason in unreadable.items():
        findings.append(Finding("error", "unreadable", str(_segmentation(folder, case)), str(reason), _AGAIN))
    for case, present in values.items():
        undeclared = [value for value in present if value not in known]
        if undeclared:
            message = f"expected only the declared values, got {', '.join(map(str, undeclared))}."
            mend = f"Correct the raw label or dataset.json. {_AGAIN}"
            findings.append(Finding("error", "undeclared-label", str(_segmentation(folder, case)), message, mend))
    return findings


def _segmentation(folder: Path, case: str) -> Path:
    """File that holds a case's labels: of its own in nnU-Net's blosc2 format, with the image in the npz format."""
    archive = folder / f"{case}.npz"
    return archive if archive.is_file() else folder / f"{case}_seg.b2nd"


def _check_splits(path: Path, raw_cases: Collection[str] | None, cases: Any) -> list[Finding]:
    if not path.is_file():
        if not isinstance(cases, int) or cases >= _FOLDS:
            return []
        message = f"expected {_FOLDS} training cases or more, as nnU-Net makes {_FOLDS} folds of them, got {cases}."
        return [Finding("warning", "splits", str(path), message, "Train fold all, or write splits_final.json.")]
    try:
        folds = [(set(fold["train"]), set(fold["val"])) for fold in read_json(path)]
        got = "" if folds else "none"
    except (DataError, KeyError, TypeError) as error:
        got = repr(error)
    if got:
        message = f"expected a list of folds with 'train' and 'val', got {got}."
        return [Finding("error", "splits", str(path), message, "Correct it, or delete it: nnU-Net makes a random one.")]
    findings = []
    for index, (training, validation) in enumerate(folds):
        for case in sorted(training & validation):
            message = f"fold {index}: case {case} is in training and validation."
            findings.append(Finding("error", "splits", str(path), message, "Take it out of one of them."))
        for case in sorted((training | validation) - set(raw_cases) if raw_cases is not None else ()):
            message = f"fold {index}: expected a case of the dataset, got {case}."
            findings.append(Finding("error", "splits", str(path), message, "Correct the name, or take it out."))
    return findings
