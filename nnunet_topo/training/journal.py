"""The training journal: one JSON object a line, appended so that a crash can cost at most the line being written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.training.atomic import sync_folder, write_atomically

KINDS = ("epoch", "event")


class Journal:
    """Append-only file of what every epoch measured and of every decision taken.

    There are two kinds of lines and no other: `epoch` (one per finished epoch) and `event` (phase changes,
    interventions, refusals). Write from one process only: under DDP that is rank 0.

    Args:
        path: the file, usually `<fold folder>/topo_journal.jsonl`. It is created by the first append.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def append_epoch(self, values: Mapping[str, Any]) -> None:
        """Append the line of one finished epoch.

        Args:
            values: must hold `epoch` (int >= 0). Values may be builtins, numpy or torch scalars, arrays, tensors,
                mappings and sequences of them; what is not finite is written as null.

        Raises:
            ConfigError: `epoch` is missing, or a value has no JSON form.
        """
        if values.get("kind", "epoch") != "epoch":
            raise ConfigError(f"values: expected kind 'epoch' or no kind, got {values['kind']!r}. Use append_event.")
        self._append(
            {"kind": "epoch", "epoch": _epoch_number(values.get("epoch")), **_without(values, "kind", "epoch")}
        )

    def append_event(self, epoch: int, what: str, why: str, before: Any, after: Any) -> None:
        """Append a decision.

        Args:
            epoch: the epoch in which it takes effect, >= 0.
            what: its kind in a word (`phase`, `rollback`, `lr`).
            why: the reason, a sentence for people.
            before: the value that was (key `from` in the file).
            after: the value that is now (key `to` in the file).

        Raises:
            ConfigError: `epoch` is not an int >= 0, or a value has no JSON form.
        """
        line = {"kind": "event", "epoch": _epoch_number(epoch), "what": str(what), "why": str(why)}
        self._append({**line, "from": before, "to": after})

    def lines(self) -> list[dict[str, Any]]:
        """All lines in file order, without a torn last one.

        A crash or a full disk can tear the last line only, so that one is left out silently; the epoch it belonged
        to is repeated after a resume anyway.

        Returns:
            The parsed objects; an empty list when there is no file.

        Raises:
            DataError: a line before the last is damaged.
        """
        return [line for _, line in self._sound_lines()]

    def count(self) -> int:
        """How many whole lines there are; they are not parsed, so damage does not matter."""
        return self.path.read_bytes().count(b"\n") if self.path.exists() else 0

    def cut_back(self, epoch: int, *, lines: int | None = None) -> None:
        """Keep only the lines of epochs before `epoch`, events included, as far as a checkpoint knew them.

        A run that resumes at `epoch` repeats what came after its checkpoint; both versions in one file would
        contradict each other. The file is replaced in one step: a crash leaves the old or the new one.

        Args:
            epoch: the first epoch that will be run again, >= 0.
            lines: how many lines there were when the checkpoint was saved, >= 0; None if it does not say.

        Raises:
            ConfigError: `epoch` is not an int >= 0.
            DataError: a line before the last is damaged, or the file cannot be written.
        """
        limit = _epoch_number(epoch)
        if not self.path.exists():
            return
        if limit == 0:
            self._replace(b"")  # also when the journal of an earlier run is damaged
            return
        kept = b"".join(raw + b"\n" for raw, line in self._sound_lines()[:lines] if line["epoch"] < limit)
        if kept != self.path.read_bytes():
            self._replace(kept)

    def _replace(self, content: bytes) -> None:
        try:
            write_atomically(self.path, content)
        except OSError as error:
            raise DataError(
                f"journal: expected to replace the file, got {error.strerror or error}. {self.path}. "
                "It is as it was: make room."
            ) from error

    def _sound_lines(self) -> list[tuple[bytes, dict[str, Any]]]:
        content = self.path.read_bytes() if self.path.exists() else b""
        raws = content.split(b"\n")
        if raws[-1] == b"":
            raws.pop()
        sound = []
        for number, raw in enumerate(raws, start=1):
            line = _parsed(raw)
            if line is not None:
                sound.append((raw, line))
            elif number < len(raws):
                kinds = " or ".join(KINDS)
                raise DataError(
                    f"journal: expected a JSON object of kind {kinds} with its epoch, got {raw[:60]!r}. "
                    f"{self.path}, line {number}. Delete that line, or move the file away to start a new one."
                )
        return sound

    def _append(self, values: Mapping[str, Any]) -> None:
        text = json.dumps(json_legal(values), allow_nan=False).encode() + b"\n"
        is_new = not self.path.exists()
        try:
            with open(self.path, "a+b") as file:
                file.seek(0)
                content = file.read()
                end, separator = _append_position(content)
                if end < len(content):
                    file.truncate(end)
                file.write(separator + text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(
                f"journal: expected to append a line, got {error.strerror}. {self.path}. Make room, go on with --c."
            ) from error
        if is_new:
            sync_folder(self.path.parent)


def json_legal(value: Any, where: str = "value") -> Any:
    """The same value in builtins that strict JSON can hold.

    Args:
        value: builtins, numpy scalars and arrays, torch tensors, paths, and mappings or sequences of them.
        where: name of the value in the error message.

    Returns:
        None, bool, int, float, str, list or dict; NaN and infinities become None, keys become str.

    Raises:
        ConfigError: a value of another type (a complex learning rate, say).
    """
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, (str, os.PathLike)):
        return str(os.fspath(value))
    if isinstance(value, Mapping):
        return {str(key): json_legal(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_legal(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "detach"):  # a torch tensor: not imported here for the sake of readers that need no torch
        return json_legal(value.detach().cpu().tolist(), where)
    if isinstance(value, np.ndarray):
        return json_legal(value.tolist(), where)
    raise ConfigError(
        f"{where}: expected numbers, text, arrays or mappings and sequences of them, got {type(value).__name__} "
        f"{value!r}. Convert it before it is written to the journal."
    )


def _append_position(content: bytes) -> tuple[int, bytes]:
    """Byte at which the next line starts once a torn tail is cut off, and what must be written before it."""
    if not content:
        return 0, b""
    body = content[:-1] if content.endswith(b"\n") else content
    start = body.rfind(b"\n") + 1
    if _parsed(body[start:]) is None:
        return start, b""
    return len(content), b"" if content.endswith(b"\n") else b"\n"


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except ValueError:  # covers broken JSON and broken UTF-8
        return None
    is_ours = isinstance(line, dict) and line.get("kind") in KINDS and isinstance(line.get("epoch"), int)
    return line if is_ours else None


def _epoch_number(epoch: Any) -> int:
    if isinstance(epoch, (bool, np.bool_)) or not isinstance(epoch, (int, np.integer)) or epoch < 0:
        raise ConfigError(f"epoch: expected an int >= 0, got {epoch!r}. Pass the number of the epoch, counted from 0.")
    return int(epoch)


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}
