"""Which label values the preprocessed segmentations hold, and which of them dataset.json does not know.

nnU-Net meets an undeclared label only as an index error (on CUDA: a device assert) in the middle of training.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_topo.data.raw import read_json, write_json
from nnunet_topo.errors import DataError

OUTSIDE_CROP = -1  # nnU-Net's preprocessing marks background outside the image's nonzero region with it

_CACHE_VERSION = 1
_MEND = "Correct the label file or dataset.json, then preprocess again (nnUNetv2_plan_and_preprocess)."


def declared_labels(dataset_json: Mapping[str, Any]) -> frozenset[int]:
    """All values that label files may hold: labels, members of regions, and the ignore label.

    Args:
        dataset_json: content of dataset.json.

    Returns:
        The values.

    Raises:
        DataError: there are no labels, or one is not an integer or a list of integers.
    """
    labels = dataset_json.get("labels")
    if not isinstance(labels, Mapping) or not labels:
        raise DataError(f"labels: expected a mapping of names to values, got {labels!r}. dataset.json.")
    values: set[int] = set()
    for name, value in labels.items():
        members = value if isinstance(value, (list, tuple)) else [value]
        for member in members:
            if isinstance(member, bool) or not isinstance(member, int):
                raise DataError(f"labels: expected an integer for '{name}', got {member!r}. dataset.json.")
            values.add(member)
    return frozenset(values)


def labels_in_preprocessed(
    folder: str | os.PathLike[str], identifiers: Iterable[str] | None = None, *, processes: int = 1
) -> dict[str, tuple[int, ...]]:
    """Distinct values in the preprocessed segmentations of one configuration.

    The answer is kept in `nnunet_topo_cache/labels_<folder name>.json` beside that folder (inside it, a foreign file
    ending would keep nnU-Net from recognising its own format; directly beside it, it could pass for a plans file), so
    the next call reads only files whose size or time changed.

    Args:
        folder: `$nnUNet_preprocessed/DatasetXXX_Name/<data_identifier>`.
        identifiers: cases to look at; None for all in the folder.
        processes: files read at once (by threads: reading and decompression leave Python's lock).

    Returns:
        Sorted values by case, in the order of the sorted cases; -1 is nnU-Net's mark for outside the image.

    Raises:
        DataError: the folder, a case or a file is missing, unreadable or of an unknown format.
    """
    found, unreadable = scan_preprocessed(folder, identifiers, processes=processes)
    for error in unreadable.values():
        raise error
    return found


def scan_preprocessed(
    folder: str | os.PathLike[str], identifiers: Iterable[str] | None = None, *, processes: int = 1
) -> tuple[dict[str, tuple[int, ...]], dict[str, DataError]]:
    """As `labels_in_preprocessed`, but goes on over unreadable files.

    Args:
        folder: as in `labels_in_preprocessed`.
        identifiers: as in `labels_in_preprocessed`.
        processes: as in `labels_in_preprocessed`.

    Returns:
        Values by case, and for every case that could not be read the error that names its file.

    Raises:
        DataError: the folder, a case or a file is missing, or the format is unknown.
    """
    root = Path(folder)
    files = _segmentation_files(root, identifiers)
    cache_path = root.parent / "nnunet_topo_cache" / f"labels_{root.name}.json"
    cache = _read_cache(cache_path)
    fingerprints = {case: _fingerprint(path) for case, path in files.items()}
    known = {
        case: cache[path.name][2]
        for case, path in files.items()
        if path.name in cache and cache[path.name][:2] == fingerprints[case]
    }
    missing = [case for case in files if case not in known]
    read: dict[str, tuple[int, ...] | DataError] = {}
    if missing:
        with ThreadPoolExecutor(max(1, processes)) as pool:
            values = pool.map(_distinct_values_or_error, [files[case] for case in missing])
            bar = tqdm(values, total=len(missing), desc=f"labels in {root.name}", unit="case", delay=2)
            read = dict(zip(missing, bar, strict=True))
    unreadable = {case: result for case, result in read.items() if isinstance(result, DataError)}
    fresh = {case: result for case, result in read.items() if not isinstance(result, DataError)}
    if fresh:
        cache.update({files[case].name: (*fingerprints[case], labels) for case, labels in fresh.items()})
        _write_cache(cache_path, cache)
    known.update(fresh)
    return {case: known[case] for case in files if case in known}, unreadable


def unexpected_labels(
    folder: str | os.PathLike[str],
    dataset_json: Mapping[str, Any],
    identifiers: Iterable[str] | None = None,
    *,
    processes: int = 1,
) -> dict[str, tuple[int, ...]]:
    """Values that are neither declared, nor the ignore label, nor nnU-Net's -1.

    Args:
        folder: as in `labels_in_preprocessed`.
        dataset_json: content of dataset.json.
        identifiers: as in `labels_in_preprocessed`.
        processes: as in `labels_in_preprocessed`.

    Returns:
        Sorted offending values by case; cases without any are absent.

    Raises:
        DataError: as in `labels_in_preprocessed` and `declared_labels`.
    """
    known = declared_labels(dataset_json) | {OUTSIDE_CROP}
    values = labels_in_preprocessed(folder, identifiers, processes=processes)
    offending = {case: tuple(value for value in present if value not in known) for case, present in values.items()}
    return {case: undeclared for case, undeclared in offending.items() if undeclared}


def require_declared_labels(
    folder: str | os.PathLike[str],
    dataset_json: Mapping[str, Any],
    identifiers: Iterable[str] | None = None,
    *,
    processes: int = 1,
) -> None:
    """Refuse to go on with labels that dataset.json does not declare.

    Args:
        folder: as in `labels_in_preprocessed`.
        dataset_json: content of dataset.json.
        identifiers: as in `labels_in_preprocessed`.
        processes: as in `labels_in_preprocessed`.

    Raises:
        DataError: names files, values and the mend; also as in `unexpected_labels`.
    """
    offending = unexpected_labels(folder, dataset_json, identifiers, processes=processes)
    if not offending:
        return
    names = [path.name for path in _segmentation_files(Path(folder), offending).values()]
    listed = "; ".join(
        f"{name}: {_join(values)}" for name, values in list(zip(names, offending.values(), strict=True))[:5]
    )
    more = f" (and {len(offending) - 5} more files)" if len(offending) > 5 else ""
    raise DataError(
        f"labels: expected {_join(sorted(declared_labels(dataset_json)))} as dataset.json declares, "
        f"got {listed}{more}. {Path(folder)}. {_MEND}"
    )


def distinct_values(labels: NDArray[np.generic]) -> tuple[int, ...]:
    """Sorted distinct values of an integer label map, without sorting its voxels where they span a narrow range."""
    if labels.size == 0:
        return ()
    low, high = int(labels.min()), int(labels.max())
    if high - low < 64:
        return tuple(value for value in range(low, high + 1) if bool((labels == value).any()))
    return tuple(int(value) for value in np.unique(labels))


def _segmentation_files(folder: Path, identifiers: Iterable[str] | None) -> dict[str, Path]:
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2

    if not folder.is_dir():
        raise DataError(f"folder: expected preprocessed data, got no such folder. {folder}. Run nnUNetv2_preprocess.")
    try:
        dataset_class = infer_dataset_class(str(folder))
    except (AssertionError, KeyError) as error:
        endings = sorted({path.name.rsplit(".", 1)[-1] for path in folder.iterdir() if path.is_file()})
        raise DataError(
            f"folder: expected preprocessed cases of one format (b2nd or npz), got files ending in {endings}. "
            f"{folder}. Remove what nnU-Net did not write, or preprocess again."
        ) from error
    cases = dataset_class.get_identifiers(str(folder)) if identifiers is None else identifiers
    files = {}
    for case in sorted(cases):
        if issubclass(dataset_class, nnUNetDatasetBlosc2):
            path = folder / f"{case}_seg.b2nd"
        else:
            unpacked = folder / f"{case}_seg.npy"
            path = unpacked if unpacked.is_file() else folder / f"{case}.npz"
        if not path.is_file():
            raise DataError(f"segmentation: expected {path.name}, got no such file. {folder}. Preprocess again.")
        files[case] = path
    return files


def _distinct_values_or_error(path: Path) -> tuple[int, ...] | DataError:
    try:
        return distinct_values(_read_segmentation(path))
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error) or type(error).__name__
        return DataError(
            f"segmentation: expected a readable file, got {reason}. {path}. "
            "Delete this case's files and preprocess again."
        )


def _read_segmentation(path: Path) -> NDArray[np.generic]:
    if path.suffix == ".b2nd":
        import blosc2

        # No memory map: a truncated file must raise, not kill the process.
        return np.asarray(blosc2.open(urlpath=str(path), mode="r", dparams={"nthreads": 1})[:])
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return np.asarray(archive["seg"])


def _fingerprint(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


_Cache = dict[str, tuple[int, int, tuple[int, ...]]]


def _read_cache(path: Path) -> _Cache:
    try:
        content = read_json(path)
        if content["version"] != _CACHE_VERSION:
            return {}
        return {
            name: (int(entry["size"]), int(entry["mtime_ns"]), tuple(int(value) for value in entry["labels"]))
            for name, entry in content["files"].items()
        }
    except (DataError, KeyError, TypeError, ValueError, AttributeError):
        return {}  # absent or damaged: the files themselves are the truth


def _write_cache(path: Path, cache: _Cache) -> None:
    content = {
        "version": _CACHE_VERSION,
        "files": {
            name: {"size": size, "mtime_ns": mtime_ns, "labels": list(labels)}
            for name, (size, mtime_ns, labels) in sorted(cache.items())
        },
    }
    try:
        path.parent.mkdir(exist_ok=True)
        write_json(path, content)
    except OSError:
        return  # a read-only folder only costs the next run this reading


def _join(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values)
