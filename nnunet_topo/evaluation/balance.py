"""Foreground balance: how much was predicted against how much was labelled, case by case.

Three failures stand out here long before a score is read: everything is foreground, nothing is, or every case gets the
same amount whatever is in it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, pstdev
from typing import Any

import numpy as np

from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.evaluation.cases import Case, read_case
from nnunet_topo.evaluation.layout import find_dataset_json, label_system, load_dataset_json, pair_folders
from nnunet_topo.evaluation.pool import run_each

NEARLY_ALL = 0.9
"""Share of the voxels from which on a prediction counts as nearly all foreground..."""
NEARLY_ALL_RATIO = 1.5
"""...if it is so many times what is labelled, too."""
UNIFORM = 0.05
"""Predicted shares whose spread over the cases is less than this part of the labelled shares' are all the same."""
_CASES_FOR_SPREAD = 3


@dataclass(frozen=True)
class CaseBalance:
    """Foreground of one case, ignored voxels left out.

    Attributes:
        case: its name.
        voxels: that are not ignored.
        labelled: foreground voxels of the ground truth.
        predicted: foreground voxels of the prediction.
    """

    case: str
    voxels: int
    labelled: int
    predicted: int

    @property
    def labelled_share(self) -> float:
        """0 to 1."""
        return self.labelled / self.voxels

    @property
    def predicted_share(self) -> float:
        """0 to 1."""
        return self.predicted / self.voxels

    @property
    def ratio(self) -> float:
        """Predicted to labelled; 1 is balanced, and so is nothing in both. Infinite where only labels are empty."""
        if not self.labelled:
            return math.inf if self.predicted else 1.0
        return self.predicted / self.labelled

    @property
    def log_ratio(self) -> float:
        """Natural logarithm of the ratio, so that twice and half are equally far from 0."""
        return math.log(self.ratio) if self.ratio > 0 else -math.inf


@dataclass(frozen=True)
class Finding:
    """A failure that the balance shows.

    Attributes:
        name: `empty`, `nearly all foreground` or `uniform`.
        cases: how many show it.
        message: what was seen.
        general: whether half of the cases or more are affected.
    """

    name: str
    cases: int
    message: str
    general: bool


@dataclass(frozen=True)
class Balance:
    """One folder of predictions.

    Attributes:
        folder: its path.
        cases: those that could be read, by name.
        problems: what could not be, by case.
    """

    folder: Path
    cases: tuple[CaseBalance, ...]
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def median_ratio(self) -> float:
        """Of predicted to labelled foreground over the cases."""
        return median(case.ratio for case in self.cases)

    @property
    def imbalance(self) -> float:
        """Median of the absolute log ratio: 0 is balanced, 0.69 is a factor of two in either direction."""
        return imbalance(self.cases)

    @property
    def predicted_spread(self) -> float:
        """Standard deviation of the predicted shares over the cases."""
        return pstdev(case.predicted_share for case in self.cases)

    @property
    def labelled_spread(self) -> float:
        """Standard deviation of the labelled shares over the cases."""
        return pstdev(case.labelled_share for case in self.cases)

    @property
    def findings(self) -> list[Finding]:
        """Failures by name, the gravest first."""
        return [*_shares_at_an_end(self.cases), *self._uniform()]

    def _uniform(self) -> list[Finding]:
        if len(self.cases) < _CASES_FOR_SPREAD or self.predicted_spread >= UNIFORM * self.labelled_spread:
            return []
        if not any(case.predicted for case in self.cases):
            return []  # nothing anywhere: "empty" says it
        share = median(case.predicted_share for case in self.cases)
        message = (
            f"every case is predicted the same share of foreground ({share:.2%}, spread {self.predicted_spread:.2%}) "
            f"while the labels differ (spread {self.labelled_spread:.2%}): the prediction does not depend on the image"
        )
        return [Finding("uniform", len(self.cases), message, general=True)]


def measure_balance(
    ground_truth: str | os.PathLike[str],
    predictions: str | os.PathLike[str],
    *,
    dataset_json: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    label: int | None = None,
    ignore_label: int | None = None,
    processes: int = 1,
) -> Balance:
    """Count the foreground of every case that a folder of predictions holds.

    Args:
        ground_truth: folder of reference segmentations; those without a prediction don't matter.
        predictions: folder of segmentations.
        dataset_json: path or content; by default looked for in both folders and their parents. Without one everything
            but 0 is foreground and nothing is ignored.
        label: count this value alone; all foreground labels together by default.
        ignore_label: value that marks unlabelled voxels, where no dataset.json says so.
        processes: cases read at once.

    Returns:
        The counts; cases that cannot be read are among its problems.

    Raises:
        ConfigError: a folder does not exist, or `label` is not a foreground label.
        DataError: no case can be read.
    """
    references, folder = Path(ground_truth), Path(predictions)
    source = dataset_json or find_dataset_json(references, folder)
    content = None if source is None else load_dataset_json(source)
    known = foreground = None
    ignore = ignore_label
    if content is not None:
        system = label_system(content, ignore_label)
        known, ignore = system.known, system.ignore_label
        foreground = frozenset(known or ()) - {0, ignore}
    if label is not None:
        if foreground is not None and label not in foreground:
            raise ConfigError(f"--label: expected one of {', '.join(map(str, sorted(foreground)))}, got {label}.")
        foreground = frozenset({label})
    pair = pair_folders(references, folder, content)
    tasks = [_Task(case, pair.reader, known, foreground, ignore) for case in pair.cases]
    problems = {case.name: f"there is no ground truth {case.ground_truth.name}" for case in pair.without_ground_truth}
    counted = []
    for index, result in run_each(_count, tasks, processes=processes):
        if isinstance(result, CaseBalance):
            counted.append(result)
        else:
            problems[tasks[index].case.name] = str(result)
    if not counted:
        listed = "; ".join(f"{name}: {message}" for name, message in sorted(problems.items())[:3])
        raise DataError(
            f"predictions: expected segmentations of the ground truth's cases, got none. {folder}. "
            f"{listed or f'It holds no *{pair.file_ending} file of that name.'}"
        )
    return Balance(folder, tuple(sorted(counted, key=lambda case: case.case)), dict(sorted(problems.items())))


def select_balanced(balances: Sequence[Balance]) -> Balance:
    """The folder whose foreground is balanced best.

    Args:
        balances: one or more. Only cases that all of them hold are looked at.

    Returns:
        The one with the smallest median absolute log ratio of those without a failure that affects half of the cases;
        the first of several equal ones.

    Raises:
        DataError: no case in common, or every folder shows a failure.
    """
    shared = set.intersection(*({case.case for case in balance.cases} for balance in balances))
    if not shared:
        folders = ", ".join(str(balance.folder) for balance in balances)
        raise DataError(f"--select: expected cases that all folders hold, got none. {folders}.")
    reduced = [
        Balance(balance.folder, tuple(case for case in balance.cases if case.case in shared)) for balance in balances
    ]
    sound = [index for index, balance in enumerate(reduced) if not any(finding.general for finding in balance.findings)]
    if not sound:
        listed = "; ".join(
            f"{balance.folder}: {', '.join(finding.name for finding in balance.findings if finding.general)}"
            for balance in reduced
        )
        raise DataError(f"--select: expected a folder without a failure, got none. {listed}. None of them is usable.")
    return balances[min(sound, key=lambda index: reduced[index].imbalance)]


def imbalance(cases: Sequence[CaseBalance]) -> float:
    """Median of the absolute log ratio over cases."""
    return median(abs(case.log_ratio) for case in cases)


def _shares_at_an_end(cases: Sequence[CaseBalance]) -> list[Finding]:
    full = [case for case in cases if case.predicted_share >= NEARLY_ALL and case.ratio >= NEARLY_ALL_RATIO]
    empty = [case for case in cases if case.labelled and not case.predicted]
    found = []
    if full:
        share = median(case.predicted_share for case in full)
        labelled = median(case.labelled_share for case in full)
        message = (
            f"nearly all voxels are predicted as foreground in {len(full)} of {len(cases)} cases "
            f"(median {share:.2%}, labelled {labelled:.2%})"
        )
        found.append(Finding("nearly all foreground", len(full), message, 2 * len(full) >= len(cases)))
    if empty:
        message = f"nothing is predicted in {len(empty)} of {len(cases)} cases, though foreground is labelled"
        found.append(Finding("empty", len(empty), message, 2 * len(empty) >= len(cases)))
    return found


@dataclass(frozen=True)
class _Task:
    case: Case
    reader: type[Any]
    known: frozenset[int] | None
    foreground: frozenset[int] | None
    ignore: int | None


def _count(task: _Task) -> CaseBalance | DataError:
    try:
        labels = read_case(task.case, task.reader, task.known)
    except DataError as error:
        return error
    valid = np.ones(labels.ground_truth.shape, bool) if task.ignore is None else labels.ground_truth != task.ignore
    if not valid.any():
        return DataError("every voxel is ignored")
    counts = [int((_is_foreground(volume, task) & valid).sum()) for volume in (labels.ground_truth, labels.prediction)]
    return CaseBalance(task.case.name, int(valid.sum()), *counts)


def _is_foreground(volume: np.ndarray[Any, Any], task: _Task) -> np.ndarray[Any, Any]:
    return volume != 0 if task.foreground is None else np.isin(volume, list(task.foreground))
