"""Helpers to find, name and write datasets in nnU-Net's raw layout."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_topo.errors import ConfigError, DataError


def dataset_folder_name(dataset_id: int, name: str) -> str:
    """Folder name that nnU-Net recognises.

    Args:
        dataset_id: 1 to 999.
        name: letters, digits, `_` and `-`.

    Returns:
        As in `Dataset100_VesuviusSurface`.

    Raises:
        ConfigError: nnU-Net would not find a dataset of that id or name.
    """
    if not 1 <= dataset_id <= 999:
        raise ConfigError(f"dataset_id: expected 1 to 999, got {dataset_id}.")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or "__" in name:
        raise ConfigError(f"name: expected letters, digits, '_' and '-' without '__', got {name!r}.")
    return f"Dataset{dataset_id:03d}_{name}"


def raw_root(folder: str | os.PathLike[str] | None) -> Path:
    """The folder that holds raw datasets: the one named, or `nnUNet_raw` of the environment.

    Raises:
        ConfigError: neither is given.
    """
    chosen = folder or os.environ.get("nnUNet_raw")
    if not chosen:
        raise ConfigError("output folder: expected -o FOLDER or the variable nnUNet_raw, got neither.")
    return Path(chosen)


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; an existing one is fine.

    Raises:
        ConfigError: it cannot be created there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"output folder: expected a place to write to, got {error.strerror}. {path}. Choose another."
        ) from error
    return path


def require_writable(folder: Path) -> None:
    """Refuse an output folder that could not be made or written to, before work whose result belongs there.

    Raises:
        ConfigError: the folder, or the nearest one above it that exists, is a file or may not be written to.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    if not place.is_dir() or not os.access(place, os.W_OK):
        found = "a folder without permission to write" if place.is_dir() else "a file"
        raise ConfigError(f"output folder: expected a place to write to, got {found}. {place}. Choose another.")


def datasets_with_id(root: Path, dataset_id: int) -> list[Path]:
    """Dataset folders of that id directly below `root`, sorted; empty when the folder does not exist."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.glob(f"Dataset{dataset_id:03d}_*") if path.is_dir())


def find_dataset(root: Path, dataset: int | str) -> Path | None:
    """The dataset folder below `root` that an id or a full name stands for.

    Args:
        root: nnUNet_raw or nnUNet_preprocessed.
        dataset: an id (100, "100") or a folder name ("Dataset100_VesuviusSurface").

    Returns:
        The folder, None when there is none.

    Raises:
        ConfigError: the id has several folders, or `dataset` is neither an id nor a dataset's name.
    """
    text = str(dataset)
    if text.startswith("Dataset"):
        return root / text if (root / text).is_dir() else None
    if not text.isdecimal():
        raise ConfigError(f"dataset: expected an id such as 100 or a name such as Dataset100_Surface, got {text!r}.")
    found = datasets_with_id(root, int(text))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ConfigError(f"dataset: expected one folder for id {text}, got {names}. {root}. Rename or remove one.")
    return found[0] if found else None


def case_identifier(image_name: str, file_ending: str) -> str | None:
    """`case` of `case_0000.tif`, None where the name has no four-digit channel or another ending."""
    match = re.fullmatch(r"(.+)_\d{4}" + re.escape(file_ending), image_name)
    return match.group(1) if match else None


def spacing_sidecar(folder: Path, case: str) -> Path:
    """The JSON file in which nnU-Net's tif reader looks for the spacing of a case's image (or label)."""
    return folder / f"{case}.json"


def write_spacing_sidecar(folder: Path, case: str, spacing: Sequence[float]) -> Path:
    """Write `{"spacing": [z, y, x]}` beside a tif image or label.

    Args:
        folder: imagesTr, labelsTr or imagesTs.
        case: identifier without channel and ending.
        spacing: three values > 0, in the order of the array's axes.

    Returns:
        The file written.

    Raises:
        DataError: not three positive numbers.
    """
    if len(spacing) != 3 or not all(value > 0 for value in spacing):
        raise DataError(f"spacing: expected three numbers > 0, got {tuple(spacing)}. {case}.")
    path = spacing_sidecar(folder, case)
    write_json(path, {"spacing": [float(value) for value in spacing]})
    return path


def write_dataset_json(
    folder: Path,
    *,
    channel_names: Mapping[int, str],
    labels: Mapping[str, int | tuple[int, ...]],
    training_cases: int,
    file_ending: str,
    name: str,
    description: str,
    licence: str,
    converted_by: str,
    **extra: Any,
) -> Path:
    """Write dataset.json through nnU-Net's own generator.

    Args:
        folder: the dataset's folder.
        channel_names: channel number to name; `CT` selects CT normalisation.
        labels: name to value; the value to be left out of training must be called `ignore` and be the highest.
        training_cases: number of cases in imagesTr.
        file_ending: as in `.tif`.
        name: of the dataset, for readers.
        description: for readers.
        licence: of the data.
        converted_by: who made the conversion.
        extra: further keys, kept as they are; nnU-Net knows `overwrite_image_reader_writer` and
            `regions_class_order`.

    Returns:
        The file written.
    """
    from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

    generate_dataset_json(
        str(folder),
        channel_names={str(index): channel for index, channel in channel_names.items()},
        labels=dict(labels),
        num_training_cases=training_cases,
        file_ending=file_ending,
        dataset_name=name,
        description=description,
        license=licence,
        converted_by=converted_by,
        **extra,
    )
    return folder / "dataset.json"


def place_file(source: Path, target: Path, *, copy: bool) -> None:
    """Make `target` a symbolic link to `source`, or a copy of it; leave it alone when it already is.

    Args:
        source: existing file.
        target: where it should appear; an older link or copy is replaced.
        copy: copy instead of link.

    Raises:
        DataError: the link or copy cannot be made.
    """
    source = source.resolve()
    try:
        if copy:
            if not target.is_symlink() and target.is_file() and _same_file_status(source, target):
                return
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            shutil.copy2(source, temporary)
            temporary.replace(target)
            return
        if target.is_symlink() and target.readlink() == source:
            return
        target.unlink(missing_ok=True)
        target.symlink_to(source)
    except OSError as error:
        way = "Make room" if copy else "Where links are not allowed, use --copy"
        raise DataError(f"{target.name}: expected to place {source}, got {error}. {way}.") from error


def remove_other_cases(folder: Path, cases: Iterable[str], file_ending: str) -> list[str]:
    """Delete links, copies and side-cars of cases that do not belong to a dataset any more.

    Args:
        folder: imagesTr, labelsTr or imagesTs.
        cases: identifiers to keep.
        file_ending: as in `.tif`.

    Returns:
        Names of the deleted files.
    """
    keep = set(cases)
    removed = []
    for path in sorted(folder.iterdir()):
        stem = path.name.removesuffix(file_ending).removesuffix(".json")
        if stem != path.name and not {stem, re.sub(r"_\d{4}$", "", stem)} & keep:
            path.unlink()
            removed.append(path.name)
    return removed


def _same_file_status(source: Path, target: Path) -> bool:
    first, second = source.stat(), target.stat()
    return first.st_size == second.st_size and int(first.st_mtime) == int(second.st_mtime)


def grouped_splits(groups: Mapping[str, str], folds: int | None = None) -> list[dict[str, list[str]]]:
    """Cross-validation splits in which no group is in training and validation at once.

    Neighbouring blocks of one specimen look alike, so random folds overestimate. Groups are dealt out, largest first,
    each to the fold that has the fewest cases.

    Args:
        groups: group of each case.
        folds: 2 to the number of groups; None makes one fold per group, at most five.

    Returns:
        As in nnU-Net's splits_final.json: one `{"train": [...], "val": [...]}` per fold, names sorted.

    Raises:
        ConfigError: fewer groups than folds, or fewer than two.
    """
    members: dict[str, list[str]] = {}
    for case, group in groups.items():
        members.setdefault(group, []).append(case)
    count = min(5, len(members)) if folds is None else folds
    if not 2 <= count <= len(members):
        raise ConfigError(
            f"folds: expected 2 to {len(members)} (the number of groups), got {count}. Groups: {sorted(members)}."
        )
    held_out: list[list[str]] = [[] for _ in range(count)]
    for group in sorted(members, key=lambda key: (-len(members[key]), key)):
        min(held_out, key=len).extend(members[group])
    return [{"train": sorted(set(groups) - set(validation)), "val": sorted(validation)} for validation in held_out]


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file so that readers see the old content or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{path.name}: expected a readable JSON file, got: {reason}. {path}. Check the path, or restore the file."
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """Content of a JSON file that holds an object.

    Raises:
        DataError: the file is missing, is not JSON, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path.name}: expected a JSON object, got {type(content).__name__}. {path}. Restore the file.")
    return content
