"""Kaggle's "Vesuvius Challenge - Surface Detection" folder to an nnU-Net raw dataset.

    python Dataset100_VesuviusSurface.py KAGGLE_DIR [-o RAW] [-d 100] [--copy] [--folds 5] [-np 8]

What the folder holds and what becomes of it:

- `train_images/<id>.tif`, `train_labels/<id>.tif` (LZW stacks): linked (or copied) as cases `<id>`, each with a
  side-car that states the spacing 1, 1, 1, without which nnU-Net guesses it and warns.
- label 2 means "nobody labelled this voxel" (over half of all voxels, and a rim of three voxels on every face). It
  becomes nnU-Net's ignore label. There is no option to train it as foreground: the competition does not score it.
- `deprecated_train_images`, `deprecated_train_labels`: withdrawn by the organisers; their labels mark no unlabelled
  voxels. Left out unless --with-deprecated is given.
- `train.csv` (id, scroll_id): cubes of one scroll look alike, so folds are made of whole scrolls.
- `test_images/<id>.tif`: imagesTs.

The channel is called CT by default, so nnU-Net clips and scales all volumes alike (CTNormalization), as the strongest
published single models did; any other --channel-name selects a z-score per volume, as the organisers' baseline did.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_topo.data.check_finding import Finding, count_errors
from nnunet_topo.data.labels import distinct_values
from nnunet_topo.data.raw import (
    dataset_folder_name,
    datasets_with_id,
    grouped_splits,
    make_folder,
    place_file,
    raw_root,
    read_json,
    remove_other_cases,
    write_dataset_json,
    write_json,
    write_spacing_sidecar,
)
from nnunet_topo.errors import ConfigError, DataError, show_without_traceback

LABELS = {"background": 0, "surface": 1, "ignore": 2}
ENDING = ".tif"
CREATOR = "nnunet-topo Dataset100_VesuviusSurface"


@dataclass(frozen=True)
class Pair:
    """A volume and its label (None for a test volume)."""

    case: str
    image: Path
    label: Path | None


def main(arguments: list[str] | None = None) -> int:
    """Convert, print what was left out and why, and return 1 when a file was bad."""
    options = _parser().parse_args(arguments)
    show_without_traceback()
    if options.processes < 1:
        raise ConfigError(f"-np: expected at least 1, got {options.processes}.")
    source, root = Path(options.kaggle_dir), raw_root(options.output)
    folder = root / dataset_folder_name(options.dataset_id, options.name)
    _require_own_place(root, folder, options.dataset_id)
    scrolls = _scrolls(source / "train.csv")
    training, findings = _training_pairs(source, scrolls, options.with_deprecated)
    test = [Pair(path.stem, path, None) for path in sorted((source / "test_images").glob(f"*{ENDING}"))]

    findings += verify(training + test, options.processes)
    bad = {finding.file for finding in findings if finding.severity == "error"}
    training = [pair for pair in training if not {str(pair.image), str(pair.label)} & bad]
    test = [pair for pair in test if str(pair.image) not in bad]
    if not training:
        _print(findings)
        raise DataError(f"train_images: expected at least one intact pair, got none. {source}. See the list above.")
    write_dataset(folder, training, test, options)
    findings += write_splits(folder, {pair.case: scrolls[pair.case] for pair in training}, options.folds)
    _print(findings)
    print(f"{folder}: {len(training)} training cases, {len(test)} test cases.")
    return int(count_errors(findings) > 0)


def verify(pairs: list[Pair], processes: int) -> list[Finding]:
    """Read every file; damaged or unexpected ones become findings, and the rest goes on."""
    with ThreadPoolExecutor(processes) as pool:
        results = tqdm(pool.map(_verify_pair, pairs), total=len(pairs), desc="verifying", unit="case")
        return [finding for findings in results for finding in findings]


def write_dataset(folder: Path, training: list[Pair], test: list[Pair], options: argparse.Namespace) -> None:
    """Links or copies, side-cars, dataset.json. Running it again changes nothing."""
    parts = {
        "imagesTr": {pair.case: pair.image for pair in training},
        "labelsTr": {pair.case: pair.label for pair in training if pair.label},
        "imagesTs": {pair.case: pair.image for pair in test},
    }
    make_folder(folder)
    # First, so that an interrupted conversion is recognised as this script's own.
    write_dataset_json(
        folder,
        channel_names={0: options.channel_name},
        labels=LABELS,
        training_cases=len(training),
        file_ending=ENDING,
        name=folder.name,
        description="Vesuvius Challenge - Surface Detection (Kaggle 2025): papyrus surface in micro-CT",
        licence="CC BY-NC 4.0; cite EduceLab-Scrolls (arXiv 2304.02084)",
        converted_by=CREATOR,
        # Without it nnU-Net tries a 2-D reader on tif first and prints that failure as a traceback.
        overwrite_image_reader_writer="Tiff3DIO",
    )
    total = sum(len(files) for files in parts.values())
    with tqdm(total=total, desc="copying" if options.copy else "linking", unit="file") as bar:
        for part, files in parts.items():
            target = make_folder(folder / part)
            remove_other_cases(target, files, ENDING)
            for case, path in files.items():
                channel = "" if part == "labelsTr" else "_0000"
                place_file(path, target / f"{case}{channel}{ENDING}", copy=options.copy)
                write_spacing_sidecar(target, case, (1.0, 1.0, 1.0))
                bar.update()


def write_splits(folder: Path, groups: dict[str, str], folds: int | None) -> list[Finding]:
    """splits_final.json beside dataset.json and, if nnUNet_preprocessed is set, where nnU-Net looks for it."""
    beside = folder / "splits_final.json"
    if len(set(groups.values())) < 2:
        beside.unlink(missing_ok=True)
        message = "expected cases of two scrolls or more, got one scroll: no split by scroll is possible."
        mend = "Add cases of another scroll. As it is, nnU-Net makes random folds of look-alike cubes."
        return [Finding("warning", "splits", str(beside), message, mend)]
    splits = grouped_splits(groups, folds)
    write_json(beside, splits)
    preprocessed = os.environ.get("nnUNet_preprocessed")
    if not preprocessed:
        message = "nnUNet_preprocessed is not set, so nnU-Net does not find these folds yet."
        mend = f"Copy the file to $nnUNet_preprocessed/{folder.name}/ before training."
        return [Finding("warning", "splits", str(beside), message, mend)]
    used = Path(preprocessed) / folder.name / "splits_final.json"
    if used.is_file() and read_json(used) != splits:
        message = "it holds other folds, on which models may have been trained already: left as it is."
        return [Finding("warning", "splits", str(used), message, f"To use the new folds, replace it by {beside}.")]
    make_folder(used.parent)
    write_json(used, splits)
    return []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("kaggle_dir", help="folder with train_images, train_labels and train.csv")
    parser.add_argument("-o", "--output", metavar="RAW", help="folder of raw datasets (default: nnUNet_raw)")
    parser.add_argument("-d", "--dataset-id", type=int, default=100)
    parser.add_argument("--name", default="VesuviusSurface")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--link", dest="copy", action="store_false", help="symbolic links to the files (default)")
    way.add_argument("--copy", dest="copy", action="store_true", help="copies of the files")
    parser.set_defaults(copy=False)
    parser.add_argument("--folds", type=int, help="number of folds of whole scrolls (default: up to 5)")
    parser.add_argument(
        "--channel-name", default="CT", help="CT: CTNormalization (default); others: z-score per volume"
    )
    parser.add_argument("--with-deprecated", action="store_true", help="include the withdrawn pairs")
    parser.add_argument("-np", "--processes", type=int, default=min(8, os.cpu_count() or 1), help="files read at once")
    return parser


def _require_own_place(root: Path, folder: Path, dataset_id: int) -> None:
    others = [path.name for path in datasets_with_id(root, dataset_id) if path != folder]
    if others:
        raise ConfigError(
            f"-d: expected a free id, got {dataset_id}, used by {', '.join(others)}. {root}. Take another."
        )
    description = folder / "dataset.json"
    ours = description.is_file() and read_json(description).get("converted_by") == CREATOR
    if folder.exists() and any(folder.iterdir()) and not ours:
        raise ConfigError(f"{folder}: expected a new folder or an earlier conversion, got something else. Remove it.")


def _scrolls(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
        scrolls = {row["id"].strip(): row["scroll_id"].strip() for row in rows}
    except (OSError, KeyError, AttributeError, UnicodeDecodeError) as error:
        mend = "Name the folder into which the competition's data was unpacked."
        raise DataError(f"train.csv: expected columns id and scroll_id, got {error!r}. {path}. {mend}") from error
    if not scrolls:
        raise DataError(f"train.csv: expected one row per volume, got none. {path}.")
    return scrolls


def _training_pairs(source: Path, scrolls: dict[str, str], with_deprecated: bool) -> tuple[list[Pair], list[Finding]]:
    images, labels = _stacks(source / "train_images"), _stacks(source / "train_labels")
    old_images, old_labels = (_stacks(source / f"deprecated_train_{part}") for part in ("images", "labels"))
    deprecated = sorted(old_images.keys() | old_labels.keys())
    findings = []
    if with_deprecated:
        images, labels = {**old_images, **images}, {**old_labels, **labels}
    elif deprecated:
        message = f"{len(deprecated)} withdrawn pairs left out: their labels mark no unlabelled voxels."
        mend = "--with-deprecated includes them."
        place = str(source / "deprecated_train_images")
        findings.append(Finding("warning", "deprecated", place, message, mend))
    left_out = set() if with_deprecated else set(deprecated) - images.keys()
    pairs = []
    for case in sorted((scrolls.keys() | images.keys() | labels.keys()) - left_out):
        image = images.get(case, source / "train_images" / f"{case}{ENDING}")
        label = labels.get(case, source / "train_labels" / f"{case}{ENDING}")
        missing = [path for path in (image, label) if not path.is_file()]
        mend = "Unpack the competition's data again."
        findings += [
            _error("missing-file", path, f"expected a file of volume {case}, got none.", mend) for path in missing
        ]
        if case not in scrolls:
            message = f"expected a row of volume {case} in train.csv, got none: its scroll, hence its fold, is unknown."
            findings.append(_error("missing-scroll", image, message, "Add the row, or remove the files."))
        elif not missing:
            pairs.append(Pair(case, image, label))
    return pairs, findings


def _stacks(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob(f"*{ENDING}"))} if folder.is_dir() else {}


def _verify_pair(pair: Pair) -> list[Finding]:
    image = _read(pair.image)
    if isinstance(image, Finding):
        return [image]
    if pair.label is None:
        return []
    label = _read(pair.label)
    if isinstance(label, Finding):
        return [label]
    if image.shape != label.shape:
        message = f"expected the shape {image.shape} of its image, got {label.shape}."
        return [_error("shape", pair.label, message, "Unpack the competition's data again.")]
    values = distinct_values(label)
    if not set(values) <= set(LABELS.values()):
        counts = ", ".join(
            f"{value} ({int((label == value).sum())} voxels)" for value in values if value not in (0, 1, 2)
        )
        message = f"expected 0 (background), 1 (surface) and 2 (unlabelled), got {counts}."
        return [_error("label-values", pair.label, message, "Correct the label, or remove the pair.")]
    path = str(pair.label)
    if 2 not in values:
        message = "expected unlabelled voxels (2), got none: the organisers' labels have them in every volume."
        mend = "Make sure that 0 is background here, and that 1 is not unlabelled; else remove the pair."
        return [Finding("warning", "no-unlabelled", path, message, mend)]
    if 1 not in values:
        message = "expected some surface (1), got none."
        return [Finding("warning", "no-foreground", path, message, "Look at it; remove the pair if it is a mistake.")]
    return []


def _read(path: Path) -> NDArray[np.generic] | Finding:
    mend = "Download the file again. (LZW stacks need the package imagecodecs.)"
    try:
        volume = tifffile.imread(path)
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, EOFError) as error:
        return _error("unreadable", path, f"expected a tif stack, got: {error}", mend)
    if volume.ndim != 3 or not np.issubdtype(volume.dtype, np.integer):
        return _error(
            "unreadable", path, f"expected a 3-D stack of integers, got {volume.ndim}-D {volume.dtype}.", mend
        )
    return volume


def _error(check: str, path: Path, message: str, mend: str) -> Finding:
    return Finding("error", check, str(path), message, mend)


def _print(findings: Iterable[Finding]) -> None:
    for finding in sorted(findings):
        print(f"{finding.severity}: {finding.file}\n    {finding.message}\n    -> {finding.mend}")


if __name__ == "__main__":
    sys.exit(main())
