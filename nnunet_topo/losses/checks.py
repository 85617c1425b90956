"""Checks of the parameters of terms. Messages start with the parameter's name: callers put the place before it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

from nnunet_topo.errors import ConfigError


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number past the largest float
        return False


def number(name: str, value: Any, *, low: float, high: float = math.inf, above: bool = False) -> float:
    """`value` as a float in [low, high], or in (low, high] with `above`."""
    if not _is_number(value) or not (low < value <= high or (value == low and not above)):
        least = f"> {low:g}" if above else f">= {low:g}"
        most = "" if high == math.inf else f" and <= {high:g}"
        raise ConfigError(f"{name}: expected a number {least}{most}, got {value!r}.")
    return float(value)


def integer(name: str, value: Any, *, low: int) -> int:
    """`value` as an int >= low."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
        raise ConfigError(f"{name}: expected a whole number >= {low}, got {value!r}.")
    return int(value)


def class_weights(name: str, value: Any) -> tuple[float, ...] | None:
    """`value` as a tuple of at least two numbers >= 0, one of them > 0; None stays None."""
    if value is None:
        return None
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or len(value) < 2
        or not all(_is_number(weight) and weight >= 0 for weight in value)
        or not any(value)
    ):
        raise ConfigError(f"{name}: expected a list of numbers >= 0, one a class, background first, got {value!r}.")
    return tuple(float(weight) for weight in value)


def spacing(value: Any) -> tuple[float, ...] | None:
    """`value` as a tuple of 2 or 3 numbers > 0; None stays None."""
    if value is None:
        return None
    values = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if len(values) not in (2, 3) or not all(_is_number(edge) and edge > 0 for edge in values):
        raise ConfigError(f"spacing: expected 2 or 3 voxel edges > 0, got {value!r}. Take it from the plans.")
    return tuple(float(edge) for edge in values)
