"""The journal as arrays over epochs, for the figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nnunet_topo.errors import DataError


class History:
    """Epoch lines as arrays over all epochs from the first to the last, NaN where there is no value."""

    def __init__(self, lines: Iterable[Mapping[str, Any]]) -> None:
        self._by_epoch = {int(line["epoch"]): line for line in lines if line.get("kind") == "epoch"}
        if not self._by_epoch:
            raise DataError("lines: expected at least one line of kind 'epoch', got none. Draw after the first epoch.")
        self.first, self.last = min(self._by_epoch), max(self._by_epoch)
        self.epochs = np.arange(self.first, self.last + 1)

    def series(self, *keys: str) -> np.ndarray:
        """The numbers found by following the keys, (epochs,)."""
        values = np.full(len(self.epochs), np.nan)
        for epoch, line in self._by_epoch.items():
            value: Any = line
            for key in keys:
                value = value.get(key) if isinstance(value, Mapping) else None
            if isinstance(value, (int, float)) and math.isfinite(value):
                values[epoch - self.first] = value
        return values

    def terms(self, *sections: tuple[str, ...]) -> list[str]:
        """Names found in any of the sections, in the order of their first appearance."""
        names: dict[str, None] = {}
        for _, line in sorted(self._by_epoch.items()):
            for keys in sections:
                value: Any = line
                for key in keys:
                    value = value.get(key) or {}
                names.update(dict.fromkeys(value))
        return list(names)

    def class_dice(self) -> list[np.ndarray]:
        """Pseudo Dice of each class, (epochs,) each."""
        rows = {e: (line.get("validation") or {}).get("pseudo_dice") or [] for e, line in self._by_epoch.items()}
        classes = np.full((max(len(row) for row in rows.values()), len(self.epochs)), np.nan)
        for epoch, row in rows.items():
            for index, value in enumerate(row):
                classes[index, epoch - self.first] = np.nan if value is None else value
        return list(classes)
