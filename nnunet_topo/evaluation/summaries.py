"""Reading summary.json, nnU-Net's and ours alike, into scores by case, label and metric."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_topo.data.raw import read_json
from nnunet_topo.errors import DataError

SUMMARY_NAMES = ("summary_topo.json", "summary.json")
"""Where a folder's scores are looked for, the richer file first."""

Scores = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Summary:
    """The scores of one file.

    Attributes:
        file: where they were read.
        cases: value by case, label (or region) and key of the metric; NaN where it is undefined.
        settings: what it was scored with, as `nnunet-topo evaluate` writes it; empty for nnU-Net's own file.
    """

    file: Path
    cases: Scores
    settings: dict[str, Any] = field(default_factory=dict)


def summary_file(path: str | os.PathLike[str]) -> Path:
    """The file of scores that a user means.

    Args:
        path: the file itself, a folder that holds one, or a fold's folder with one in `validation`.

    Returns:
        summary_topo.json where there is one, otherwise summary.json.

    Raises:
        DataError: there is none.
    """
    place = Path(path)
    if place.is_file():
        return place
    candidates = [place / folder / name for folder in ("", "validation") for name in SUMMARY_NAMES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataError(
        f"summary: expected a summary.json, a folder that holds one, or a fold's folder, got none. {place}. "
        "Make one with 'nnunet-topo evaluate GT_DIR PRED_DIR'."
    )


def case_name(file: str) -> str:
    """Case that a path in a summary belongs to: its last part without the file ending.

    >>> case_name("/data/predictions/patient.07.nii.gz")
    'patient.07'
    """
    return re.sub(r"\.nii\.gz$|\.[^.]+$", "", re.split(r"[/\\]", file)[-1])


def read_summary(path: str | os.PathLike[str]) -> Summary:
    """Scores of a file that nnU-Net or `nnunet-topo evaluate` wrote.

    Args:
        path: as for `summary_file`.

    Raises:
        DataError: no such file, of another shape, or with a case twice.
    """
    file = summary_file(path)
    content = read_json(file)
    entries = content.get("metric_per_case") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise DataError(f"metric_per_case: expected the list that nnU-Net's summary.json holds, got none. {file}.")
    cases: Scores = {}
    for entry in entries:
        name = _named(entry, file)
        if name in cases:
            raise DataError(f"metric_per_case: expected each case once, got '{name}' twice. {file}.")
        try:
            cases[name] = {
                str(label): {str(key): _number(value) for key, value in values.items()}
                for label, values in entry["metrics"].items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"metrics: expected numbers by label, got {error!r} in case '{name}'. {file}.") from error
    settings = content.get("settings")
    return Summary(file, cases, settings if isinstance(settings, dict) else {})


def foreground_labels(cases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Labels and regions of a summary's cases in their order, without the background."""
    labels = dict.fromkeys(label for metrics in cases.values() for label in metrics)
    return [label for label in labels if label != "0"]


def _named(entry: Any, file: Path) -> str:
    name = (entry.get("prediction_file") or entry.get("reference_file")) if isinstance(entry, dict) else None
    if not isinstance(name, str):
        raise DataError(f"metric_per_case: expected cases with a prediction_file, got {str(entry)[:80]!r}. {file}.")
    return case_name(name)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
