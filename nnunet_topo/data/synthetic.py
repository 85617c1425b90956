"""Synthetic datasets in nnU-Net's raw layout whose topology is known and easy to lose."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_topo.data.raw import (
    dataset_folder_name,
    datasets_with_id,
    make_folder,
    read_object,
    write_dataset_json,
    write_spacing_sidecar,
)
from nnunet_topo.data.synthetic_scroll import scroll_volume, unlabelled_mask
from nnunet_topo.data.synthetic_vessels import vessel_volume
from nnunet_topo.errors import ConfigError, DataError, nearest
from nnunet_topo.metrics.betti import betti_numbers

KINDS = ("scroll", "vessels")
SMALLEST, LARGEST = 24, 256
IGNORE = 2
CREATOR = "nnunet-topo synth"

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Case:
    """One synthetic case.

    Attributes:
        name: identifier, as in `scroll_003` or `scroll_test_000`.
        image: (Z, Y, X) uint8 (scroll) or float32 (vessels).
        truth: (Z, Y, X) bool, the complete foreground.
        labels: (Z, Y, X) uint8, what goes to the label file: 0, 1, and 2 where nobody labelled.
        spacing: (Z, Y, X).
    """

    name: str
    image: NDArray[np.generic]
    truth: NDArray[np.bool_]
    labels: NDArray[np.uint8]
    spacing: Spacing


@dataclass(frozen=True)
class CaseTopology:
    """A row of topology.csv: Betti numbers (26 neighbours) of the whole truth and of its labelled part."""

    case: str
    split: str
    b0: int
    b1: int
    b2: int
    labelled_b0: int
    labelled_b1: int
    labelled_b2: int
    foreground_share: float
    ignored_share: float


def make_case(
    kind: str, *, size: int, seed: int, index: int, test: bool = False, spacing: Spacing = (1.0, 1.0, 1.0)
) -> Case:
    """One case; it depends on the arguments alone, not on how many others are made.

    Training cases of a scroll have unlabelled regions (value 2) as real ones have; held-out cases are labelled
    completely, because the truth is known.

    Args:
        kind: `scroll` or `vessels`.
        size: edge length in voxels, 24 to 256.
        seed: of the dataset, >= 0.
        index: of the case, >= 0.
        test: a held-out case instead of a training case.
        spacing: three values > 0; scrolls are isotropic.

    Returns:
        The case.

    Raises:
        ConfigError: an argument is out of range.
    """
    _check_arguments(kind, size, seed, spacing)
    generator = np.random.default_rng([seed, KINDS.index(kind), int(test), index])
    name = f"{kind}_{'test_' if test else ''}{index:03d}"
    if kind == "vessels":
        image, truth = vessel_volume(size, generator, spacing)
        return Case(name, image, truth, truth.astype(np.uint8), spacing)
    sheet_image, truth = scroll_volume(size, generator)
    labels = truth.astype(np.uint8)
    if not test:
        labels[unlabelled_mask(size, generator)] = IGNORE
    return Case(name, sheet_image, truth, labels, spacing)


def write_synthetic_dataset(
    root: Path,
    *,
    kind: str,
    cases: int = 8,
    test_cases: int = 2,
    size: int = 64,
    seed: int = 0,
    dataset_id: int = 998,
    name: str | None = None,
    spacing: Spacing = (1.0, 1.0, 1.0),
    force: bool = False,
    progress: bool = True,
) -> tuple[Path, list[CaseTopology]]:
    """Write a dataset: imagesTr, labelsTr, imagesTs, labelsTs, dataset.json, topology.csv.

    It is built beside its final place and renamed at the end, so an interrupted run leaves no half dataset.

    Args:
        root: nnUNet_raw.
        kind: `scroll` (tif with spacing side-cars) or `vessels` (nii.gz).
        cases: training cases, >= 1.
        test_cases: held-out cases, >= 0.
        size: edge length in voxels, 24 to 256.
        seed: >= 0; the same seed gives the same files.
        dataset_id: 1 to 999.
        name: of the dataset; None for SyntheticScroll or SyntheticVessels.
        spacing: of vessels, (Z, Y, X).
        force: replace a dataset that this function wrote.
        progress: show a progress bar.

    Returns:
        The folder, and a row per case.

    Raises:
        ConfigError: an argument is out of range, or the place is taken.
    """
    _check_arguments(kind, size, seed, spacing)
    if cases < 1 or test_cases < 0:
        raise ConfigError(f"cases: expected at least 1 training and 0 test cases, got {cases} and {test_cases}.")
    folder = root / dataset_folder_name(dataset_id, name or f"Synthetic{kind.capitalize()}")
    _check_place(root, folder, dataset_id, force)
    building = root / f".{folder.name}.{os.getpid()}"
    try:
        for subfolder in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            make_folder(building / subfolder)
        jobs = [(False, index) for index in range(cases)] + [(True, index) for index in range(test_cases)]
        rows = []
        for test, index in tqdm(jobs, desc=folder.name, unit="case", disable=not progress):
            case = make_case(kind, size=size, seed=seed, index=index, test=test, spacing=spacing)
            _write_case(building, case, test)
            rows.append(_topology(case, test))
        _write_topology_csv(building / "topology.csv", rows)
        _write_description(building, kind, cases, size, seed, folder.name)
        if folder.exists():
            shutil.rmtree(folder)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder, rows


def _check_arguments(kind: str, size: int, seed: int, spacing: Spacing) -> None:
    if kind not in KINDS:
        raise ConfigError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}.{nearest(kind, KINDS)}")
    if not SMALLEST <= size <= LARGEST:
        raise ConfigError(f"size: expected {SMALLEST} to {LARGEST} voxels, got {size}.")
    if seed < 0:
        raise ConfigError(f"seed: expected an integer >= 0, got {seed}.")
    if len(spacing) != 3 or not all(0 < value < float("inf") for value in spacing):
        raise ConfigError(f"spacing: expected three numbers > 0 (Z Y X), got {tuple(spacing)}.")
    if max(spacing) > 10 * min(spacing):
        raise ConfigError(f"spacing: expected at most a tenfold anisotropy, got {tuple(spacing)}.")
    if kind == "scroll" and len(set(spacing)) > 1:
        raise ConfigError(f"spacing: expected equal values for a scroll, got {tuple(spacing)}. Use --kind vessels.")


def _check_place(root: Path, folder: Path, dataset_id: int, force: bool) -> None:
    others = [path.name for path in datasets_with_id(root, dataset_id) if path != folder]
    if others:
        raise ConfigError(
            f"dataset_id: expected an id that is free, got {dataset_id}, used by {', '.join(others)}. {root}. "
            "nnU-Net refuses two datasets of one id: choose another --dataset-id."
        )
    if not folder.exists():
        return
    ours = False
    with contextlib.suppress(DataError):  # no dataset.json, or a damaged one
        ours = read_object(folder / "dataset.json").get("converted_by") == CREATOR
    if not ours:
        raise ConfigError(f"{folder}: expected a free place, got a folder that this command did not write. Remove it.")
    if not force:
        raise ConfigError(f"{folder}: expected a free place, got a dataset. Use --force to replace it.")


def _write_case(folder: Path, case: Case, test: bool) -> None:
    images, labels = (folder / f"{part}{'Ts' if test else 'Tr'}" for part in ("images", "labels"))
    if case.image.dtype == np.uint8:
        import tifffile

        for path, array in ((images / f"{case.name}_0000.tif", case.image), (labels / f"{case.name}.tif", case.labels)):
            tifffile.imwrite(path, array, compression="zlib", photometric="minisblack", metadata=None)
            write_spacing_sidecar(path.parent, case.name, case.spacing)
        return
    import SimpleITK

    for path, array in (
        (images / f"{case.name}_0000.nii.gz", case.image),
        (labels / f"{case.name}.nii.gz", case.labels),
    ):
        volume = SimpleITK.GetImageFromArray(array)
        volume.SetSpacing(tuple(float(value) for value in reversed(case.spacing)))
        SimpleITK.WriteImage(volume, str(path), useCompression=True)


def _topology(case: Case, test: bool) -> CaseTopology:
    return CaseTopology(
        case.name,
        "test" if test else "train",
        *betti_numbers(case.truth),
        *betti_numbers(case.labels == 1),
        foreground_share=round(float(case.truth.mean()), 6),
        ignored_share=round(float((case.labels == IGNORE).mean()), 6),
    )


def _rows(topologies: Iterable[CaseTopology]) -> Iterator[list[object]]:
    names = [field.name for field in fields(CaseTopology)]
    yield list(names)
    for topology in topologies:
        yield [getattr(topology, name) for name in names]


def _write_topology_csv(path: Path, topologies: Iterable[CaseTopology]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(_rows(topologies))


def _write_description(folder: Path, kind: str, cases: int, size: int, seed: int, name: str) -> None:
    scroll = kind == "scroll"
    write_dataset_json(
        folder,
        channel_names={0: "micro-CT" if scroll else "microscopy"},
        labels={"background": 0, "surface": 1, "ignore": IGNORE} if scroll else {"background": 0, "vessel": 1},
        training_cases=cases,
        file_ending=".tif" if scroll else ".nii.gz",
        name=name,
        description=f"Synthetic {kind}, {size} voxels a side, seed {seed}. labelsTs are complete (no ignored voxels).",
        licence="CC0-1.0",
        converted_by=CREATOR,
        # Without it nnU-Net tries a 2-D reader on tif first and prints that failure as a traceback.
        **({"overwrite_image_reader_writer": "Tiff3DIO"} if scroll else {}),
    )
