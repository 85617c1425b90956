"""Files that are at every moment either the old ones or the new ones, whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, displaced: Path | None = None) -> Iterator[BinaryIO]:
    """A binary stream whose content takes the place of a file when the block ends, and vanishes when it raises.

    Args:
        path: the file, with one writer at a time; its folder must exist. `<name>.tmp` beside it is used on the way:
            a name that the next write takes again, so that a killed process leaves one such file at the most.
        displaced: where the file that was at `path` goes, in the same folder; without it that file is gone.
    """
    target = Path(path)
    temporary = target.with_name(f"{target.name}.tmp")
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if displaced is not None:
            os.replace(target, displaced)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a whole file through `atomic_file`."""
    with atomic_file(path) as stream:
        stream.write(content)


def sync_folder(folder: Path) -> None:
    """Make a new or renamed entry survive a power failure; Windows cannot open folders and does not need it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
