"""Whether every preprocessed file is whole, and still what it was at the last check."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nnunet_topo.data.check_finding import Finding
from nnunet_topo.data.raw import read_json, write_json
from nnunet_topo.errors import DataError

_VERSION = 1
_AGAIN = "Preprocess again: nnUNetv2_preprocess (or nnUNetv2_plan_and_preprocess)."
_Record = dict[str, tuple[int, str]]


def check_intact(folder: Path, cases: Sequence[str], *, processes: int) -> list[Finding]:
    """Read every file of the preprocessed cases, and compare it with what an earlier check saw.

    nnU-Net's formats hold no checksum, so a damaged image trains like a sound one. The SHA-256 of every sound file is
    kept in `nnunet_topo_cache/checksums_<folder name>.json` beside the folder. Files that differ from it are errors,
    unless all of them were written anew since: then the dataset was preprocessed again, and the record is renewed.

    Args:
        folder: `$nnUNet_preprocessed/DatasetXXX_Name/<data_identifier>`.
        cases: whose files are looked at; missing ones are somebody else's finding.
        processes: files read at once (by threads: reading and hashing leave Python's lock).

    Returns:
        The findings, one a file at most.
    """
    endings = (".b2nd", "_seg.b2nd", ".npz", ".pkl")
    files = [path for case in cases for ending in endings if (path := folder / f"{case}{ending}").is_file()]
    record = folder.parent / "nnunet_topo_cache" / f"checksums_{folder.name}.json"
    known = _read_record(record)
    with ThreadPoolExecutor(max(1, processes)) as pool:
        seen = dict(zip(files, pool.map(_look_at, files), strict=True))
    rewritten = all(known[path.name][0] != path.stat().st_mtime_ns for path in files if path.name in known)
    findings, sound = [], {}
    for path, (checksum, fault) in seen.items():
        if fault:
            findings.append(Finding("error", "unreadable", str(path), fault, _AGAIN))
        elif not rewritten and path.name in known and known[path.name][1] != checksum:
            message = "expected the content of the last check, got another, while other files stayed as they were."
            mend = f"The file is damaged, or was changed by hand. {_AGAIN}"
            findings.append(Finding("error", "checksum", str(path), message, mend))
            sound[path.name] = known[path.name]  # remembered, so that the next check says it again
        else:
            sound[path.name] = (path.stat().st_mtime_ns, checksum)
    findings += _different_shapes(folder, cases, {Path(finding.file).name for finding in findings})
    if sound != known:
        _write_record(record, sound)
    return findings


def _look_at(path: Path) -> tuple[str, str]:
    """Checksum of a file, and what is wrong with it ("" for nothing)."""
    try:
        with path.open("rb") as stream:
            checksum = hashlib.sha256()
            while block := stream.read(1 << 22):
                checksum.update(block)
        if path.suffix == ".b2nd":
            _decompress(path)
        elif path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            if broken:
                return "", f"expected a whole archive, got a wrong checksum of {broken}."
    except (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        return "", f"expected a readable file, got {str(error) or type(error).__name__}."
    return checksum.hexdigest(), ""


def _decompress(path: Path) -> None:
    """Read a blosc2 file to its end, a chunk at a time."""
    import blosc2

    # No memory map: a truncated file must raise, not kill the process.
    array = blosc2.open(urlpath=str(path), mode="r", dparams={"nthreads": 1})  # its schunk does not outlive it
    for number in range(array.schunk.nchunks):
        array.schunk.decompress_chunk(number)


def _different_shapes(folder: Path, cases: Sequence[str], damaged: set[str]) -> list[Finding]:
    import blosc2

    findings = []
    for case in cases:
        names = (f"{case}.b2nd", f"{case}_seg.b2nd")
        if damaged.intersection(names) or not all((folder / name).is_file() for name in names):
            continue
        image, labels = (tuple(blosc2.open(urlpath=str(folder / name), mode="r").shape[1:]) for name in names)
        if image != labels:
            message = f"expected the shape {image} of the preprocessed image, got {labels}."
            findings.append(Finding("error", "shape", str(folder / names[1]), message, _AGAIN))
    return findings


def _read_record(path: Path) -> _Record:
    try:
        content = read_json(path)
        if content["version"] != _VERSION:
            return {}
        return {name: (int(entry["mtime_ns"]), str(entry["sha256"])) for name, entry in content["files"].items()}
    except (DataError, KeyError, TypeError, ValueError, AttributeError):
        return {}  # absent or damaged: this check becomes the first


def _write_record(path: Path, record: _Record) -> None:
    files = {name: {"mtime_ns": mtime_ns, "sha256": sha256} for name, (mtime_ns, sha256) in sorted(record.items())}
    try:
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"version": _VERSION, "files": files})
    except OSError:
        return  # a read-only folder: there is nothing to compare with next time
