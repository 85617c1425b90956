"""Score a folder of predictions against a folder of ground truth, case by case."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from nnunet_topo.errors import ConfigError, DataError, nearest
from nnunet_topo.evaluation.layout import (
    FolderPair,
    LabelSystem,
    find_dataset_json,
    label_system,
    load_dataset_json,
    pair_folders,
)  # fmt: skip
from nnunet_topo.evaluation.pool import run_each
from nnunet_topo.evaluation.score_case import CaseScores, Settings, labels_in_file, score_case
from nnunet_topo.evaluation.summary_file import make_summary, write_summary
from nnunet_topo.metrics.registry import DEFAULT_METRICS, NNUNET_METRICS, PRESETS, metric_named
from nnunet_topo.metrics.scores import TOLERANCE_MM

_CONNECTIVITIES = (26, 6, 8, 4)
# What the competition's label files hold; it came without a dataset.json.
_VESUVIUS = {"labels": {"background": 0, "surface": 1, "ignore": 2}}

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Problem:
    """What kept a case from being scored, or should be known about its files.

    Attributes:
        case: file name without ending.
        message: what was expected, what was found, and what to do.
    """

    case: str
    message: str


@dataclass(frozen=True)
class Evaluation:
    """Scores of a folder.

    Attributes:
        summary: in the shape of nnU-Net's summary.json, with `sd` (of every mean), `errors`, and `settings` besides.
        problems: cases that were not scored.
        warnings: cases that were, though their files differ in spacing or place.
    """

    summary: dict[str, Any]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def evaluate_folders(
    ground_truth_folder: str | os.PathLike[str],
    prediction_folder: str | os.PathLike[str],
    *,
    dataset_json: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    metrics: Sequence[str] | None = None,
    preset: str | None = None,
    processes: int = 2,
    tolerance_mm: float = TOLERANCE_MM,
    connectivity: int | None = None,
    ignore_label: int | None = None,
    cases: Sequence[str] | None = None,
    chill: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Scores by case, label or region, and metric, with their means; what is wrong with a case stops only that case.

    Args:
        ground_truth_folder: segmentations named as the predictions are.
        prediction_folder: what nnUNetv2_predict or a validation wrote.
        dataset_json: path or content. By default that of the prediction folder, the ground truth folder or their
            parents; without any, all values but 0 that the ground truth holds are labels.
        metrics: names in `nnunet_topo.metrics.registry`; nnU-Net's own are always there.
        preset: name of a set of metrics; together with `metrics`, both. With neither, DEFAULT_METRICS.
        processes: worker processes; with 1, this one.
        tolerance_mm: of the surface Dice, >= 0.
        connectivity: of components, loops and cavities; 26 or 6 (2-D: 8 or 4). None means 26 (8).
        ignore_label: value that marks unlabelled voxels, where no dataset.json says so.
        cases: names to score; None for all.
        chill: a case without prediction is left out silently, as nnU-Net does by default.
        progress: show a bar on stderr.

    Returns:
        Summary, problems and warnings.

    Raises:
        ConfigError: a setting is wrong, or a folder is missing.
        DataError: dataset.json is wrong, or there is no ground truth that can be read.
    """
    names = _metric_names(metrics, preset)
    _check(processes, tolerance_mm, connectivity)
    ground_truth, prediction = Path(ground_truth_folder), Path(prediction_folder)
    source = dataset_json if dataset_json is not None else find_dataset_json(ground_truth, prediction)
    content = load_dataset_json(source) if source is not None else _VESUVIUS if preset == "vesuvius" else None
    system = label_system(content, ignore_label) if content is not None else None
    pair = pair_folders(ground_truth, prediction, content, cases=cases)
    system = system or _labels_found(pair, ignore_label, processes, progress)
    settings = Settings(pair.reader, system, names, tolerance_mm, connectivity)
    problems, warnings = _unpaired(pair, chill), []
    scored: dict[str, CaseScores] = {}
    tasks = [(case, settings) for case in pair.cases]
    for index, result in _with_bar(score_case, tasks, processes, "evaluating", progress):
        case = pair.cases[index]
        if isinstance(result, DataError):
            problems.append(Problem(case.name, str(result)))
        else:
            scored[case.name] = result
            warnings += [Problem(case.name, warning) for warning in result.warnings]
    problems.sort(key=lambda problem: problem.case)
    warnings.sort(key=lambda problem: problem.case)
    summary = make_summary([(case, scored[case.name].metrics) for case in pair.cases if case.name in scored], settings)
    summary["errors"] = [asdict(problem) for problem in problems]
    path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    summary["settings"]["dataset_json"] = path
    summary["settings"]["labels_from"] = path or _origin(source, preset, content)
    return Evaluation(summary, problems, warnings)


def write_evaluation(evaluation: Evaluation, json_path: str | os.PathLike[str]) -> Path:
    """Write the summary as JSON, and a table of all cases as CSV beside it; each file is the old or the new one, whole.

    Args:
        evaluation: result of `evaluate_folders`.
        json_path: ends in `.json`; its folder is made if need be.

    Returns:
        Path of the CSV file.

    Raises:
        ConfigError: the path ends otherwise, or cannot be written.
    """
    return write_summary(evaluation.summary, Path(json_path))


def _metric_names(metrics: Sequence[str] | None, preset: str | None) -> tuple[str, ...]:
    if preset is not None and preset not in PRESETS:
        hint = nearest(preset, PRESETS)
        raise ConfigError(f"preset: expected one of {', '.join(PRESETS)}, got '{preset}'.{hint}")
    chosen = (*PRESETS.get(preset or "", ()), *(metrics or ())) or DEFAULT_METRICS
    return tuple(dict.fromkeys((*NNUNET_METRICS, *(metric_named(name).name for name in chosen))))


def _check(processes: int, tolerance_mm: float, connectivity: int | None) -> None:
    if processes < 1:
        raise ConfigError(f"processes: expected at least 1, got {processes}.")
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ConfigError(f"tolerance_mm: expected a number >= 0, got {tolerance_mm}.")
    if connectivity not in (None, *_CONNECTIVITIES):
        raise ConfigError(f"connectivity: expected 26 or 6 (2-D: 8 or 4), got {connectivity}.")


def _labels_found(pair: FolderPair, ignore_label: int | None, processes: int, progress: bool) -> LabelSystem:
    """All labels that the ground truth holds; 1 where it holds background alone."""
    tasks = [(case.ground_truth, pair.reader) for case in (*pair.cases, *pair.without_prediction)]
    found = {0}
    for _, values in _with_bar(labels_in_file, tasks, processes, "looking for labels", progress):
        found.update(() if isinstance(values, DataError) else values)
    foreground = sorted(found - {0, ignore_label}) or [1]
    known = frozenset(found | {*foreground} | (set() if ignore_label is None else {ignore_label}))
    return LabelSystem(tuple(foreground), known, ignore_label)


def _origin(source: object, preset: str | None, content: object) -> str:
    """Where the labels come from when no file says so."""
    if source is not None:
        return "the dataset_json that was passed"
    return f"the preset '{preset}' (no dataset.json)" if content is not None else "the ground truth (no dataset.json)"


def _unpaired(pair: FolderPair, chill: bool) -> list[Problem]:
    missing = [
        Problem(
            case.name,
            f"prediction: expected a file, got none. {case.prediction}. Predict this case, or pass --chill to leave "
            "out what was not predicted.",
        )
        for case in (() if chill else pair.without_prediction)
    ]
    return missing + [
        Problem(
            case.name,
            f"ground truth: expected a file for this prediction, got none. {case.ground_truth}. Remove the prediction, "
            "or check that both folders belong together.",
        )
        for case in pair.without_ground_truth
    ]


def _with_bar(
    function: Callable[[T], R], tasks: Sequence[T], processes: int, title: str, progress: bool
) -> Iterator[tuple[int, R | DataError]]:
    results = run_each(function, tasks, processes=processes)
    yield from tqdm(results, total=len(tasks), desc=title, unit="case", disable=not progress)
