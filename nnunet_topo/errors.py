"""The errors that users meet: one line each, naming the argument, the value, the place and the mend."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from types import TracebackType


class TopoError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(TopoError, ValueError):
    """A setting (recipe, command line, environment variable) is wrong or not available."""


class ShapeError(TopoError, ValueError):
    """A tensor or array has another shape, dtype or number of channels than required."""


class DataError(TopoError, ValueError):
    """A file, case or label of a dataset is missing, unreadable or out of range."""


class CheckpointError(TopoError, RuntimeError):
    """A checkpoint is missing, damaged, unsafe to load, or belongs to other settings."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Hint to append to an "unknown key" message.

    Args:
        name: what the user wrote.
        valid: the names that would have been accepted.

    Returns:
        `" Did you mean 'x'?"` for the most similar valid name, or `""` when none is similar.
    """
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def show_without_traceback() -> None:
    """Make uncaught errors of this package print as one line instead of a traceback.

    Stock nnU-Net's commands are not ours, so an error raised inside a trainer would otherwise reach the user below
    thirty lines of frames. The exit status stays 1 and every other exception keeps its traceback. Calling it again
    changes nothing. With several GPUs torch starts a process for each and wraps the message in a traceback of its own.
    """
    if getattr(sys.excepthook, "shows_topo_errors", False):
        return
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if isinstance(error, TopoError):
            sys.stderr.write(f"error: {error}\n")
        else:
            previous(kind, error, traceback)

    hook.shows_topo_errors = True  # type: ignore[attr-defined]
    sys.excepthook = hook
