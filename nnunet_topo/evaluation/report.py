"""One HTML page about a training: what it was, how it went, and where its predictions are wrong."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from tqdm import tqdm

from nnunet_topo import __version__
from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.evaluation.layout import find_dataset_json, load_dataset_json
from nnunet_topo.evaluation.report_cases import load_volumes
from nnunet_topo.evaluation.report_errors import case_section, legend
from nnunet_topo.evaluation.report_facts import duration, run_section
from nnunet_topo.evaluation.report_html import card, facts, page, significant
from nnunet_topo.evaluation.report_run import Run, read_run
from nnunet_topo.evaluation.report_scores import (
    BETTI_ERRORS,
    Predictions,
    Row,
    differences,
    mean_of,
    read_predictions,
    rows_worst_first,
)
from nnunet_topo.evaluation.report_tables import cases_table, comparison_table, foreground_ratio, foreground_section
from nnunet_topo.evaluation.report_training import dice_of_both, training_section
from nnunet_topo.evaluation.report_views import CaseVolumes
from nnunet_topo.training.atomic import write_atomically

REPORT_FILE = "report.html"
CLOSE_UPS = 4  # of errors of a case
FAR_FROM_ONE = 1.5  # ratio of predicted to labelled foreground that a reader must not overlook


@dataclass(frozen=True)
class Report:
    """A page that was written.

    Attributes:
        file: the page.
        size_bytes: of it.
        figures: what it says first, as (value, meaning).
        notes: what was missing.
    """

    file: Path
    size_bytes: int
    figures: list[tuple[str, str]]
    notes: list[str]


@dataclass(frozen=True)
class _Results:
    """A model folder with the scores of its validation, or a folder of predictions (run is None)."""

    name: str
    folder: Path
    run: Run | None
    dataset: str
    dataset_json: dict[str, object]
    predictions: list[Predictions]
    rows: list[Row]

    @property
    def notes(self) -> list[str]:
        found = [f"{part.name}: {note}" if part.name else note for part in self.predictions for note in part.notes]
        return [f"{fold.name}: {note}" for fold in (self.run.folds if self.run else ()) for note in fold.notes] + found


def write_report(
    results: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    against: str | os.PathLike[str] | None = None,
    ground_truth: str | os.PathLike[str] | None = None,
    cases: int = 3,
    processes: int = 2,
    progress: bool = True,
) -> Report:
    """Write the page.

    Args:
        results: model folder with `fold_*`, one fold's folder, or with `ground_truth` a folder of predictions.
        output: file to write; report.html in the results by default.
        against: results of another run on the same cases.
        ground_truth: folder of labels; by default where nnU-Net keeps those of the dataset.
        cases: how many of the worst are shown in pictures, >= 0.
        processes: for scores that have to be computed.
        progress: show a bar on stderr.

    Raises:
        ConfigError: a setting is wrong, or the page cannot be written there.
        DataError: there is nothing to report on, or a file of the results is damaged.
    """
    if cases < 0:
        raise ConfigError(f"cases: expected at least 0, got {cases}.")
    truth = Path(ground_truth) if ground_truth is not None else None
    if truth is not None and not truth.is_dir():
        raise ConfigError(f"ground truth: expected a folder, got no such folder. {truth}. Check the path.")
    mine = _read(Path(results), truth, processes)
    other = _read(Path(against), truth, processes) if against is not None else None
    notes = mine.notes + [f"the other run, {note}" for note in (other.notes if other else [])]
    pictures = _pictures(mine, other, cases, notes, progress)
    figures = _figures(mine)
    title = f"{mine.name}: {mine.dataset}" if mine.dataset else mine.name
    sections = [
        ("top", "", _top(mine, other, figures, notes)),
        ("errors", "Where it goes wrong: the worst cases", pictures),
        ("comparison", "Against the other run", _comparison(mine, other) if other else ""),
        ("cases", "Scores of every case, worst first", cases_table(mine.rows, mine.dataset_json)),
        ("foreground", "How much is predicted", foreground_section(mine.rows)),
        ("run", "What was trained", run_section(mine.run) if mine.run else ""),
        ("training", "Training", _training(mine)),
        ("notes", "What is missing here", "".join(f"<p>{html.escape(note)}</p>" for note in notes)),
    ]
    written = (
        f"Written by nnunet-topo {__version__} on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC from {mine.folder}."
    )
    content = page(title, sections, html.escape(written)).encode()
    file = Path(output) if output is not None else mine.folder / REPORT_FILE
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
    except OSError as error:
        raise ConfigError(f"-o: expected a file that can be written, got {error}. {file}. Choose another.") from error
    return Report(file, len(content), figures, notes)


def _read(folder: Path, truth: Path | None, processes: int) -> _Results:
    folder = folder.resolve()
    is_model = any(folder.glob("fold_*")) or folder.name.startswith("fold_")
    if truth is not None and folder.is_dir() and not is_model:
        source = find_dataset_json(truth, folder)
        content = dict(load_dataset_json(source)) if source else {}
        part = read_predictions("", folder, "", content, ground_truth=truth, processes=processes)
        return _Results(folder.name, folder, None, "", content, [part], rows_worst_first([part]))
    run = read_run(folder)
    parts = [
        read_predictions(
            fold.name,
            fold.folder / "validation",
            run.dataset,
            run.dataset_json,
            ground_truth=truth,
            processes=processes,
        )
        for fold in run.folds
    ]
    place = folder if folder.name.startswith("fold_") else run.folder
    return _Results(run.trainer, place, run, run.dataset, dict(run.dataset_json), parts, rows_worst_first(parts))


def _pictures(mine: _Results, other: _Results | None, count: int, notes: list[str], progress: bool) -> str:
    """The worst cases, each once, by its worst label."""
    worst: dict[str, Row] = {}
    for row in mine.rows:
        if row.predictions.ground_truth is not None:
            worst.setdefault(row.case, row)
    found = ""
    for number, row in enumerate(
        tqdm(list(worst.values())[:count], desc="pictures", disable=None if progress else True), start=1
    ):
        try:
            volumes = load_volumes(row, mine.dataset, mine.dataset_json)
            found += case_section(number, row, volumes, CLOSE_UPS, _same_case(row, volumes, other, notes))
        except DataError as error:
            notes.append(f"no pictures of {row.case}: {error}")
    return legend() + found if found else ""


def _same_case(row: Row, volumes: CaseVolumes, other: _Results | None, notes: list[str]) -> CaseVolumes | None:
    found = [row_ for row_ in other.rows if (row_.case, row_.label) == (row.case, row.label)] if other else []
    if other is None or not found or found[0].predictions.ground_truth is None:
        return None
    try:
        theirs = load_volumes(found[0], other.dataset, other.dataset_json)
    except DataError as error:
        notes.append(f"the other run, no pictures of {row.case}: {error}")
        return None
    return theirs if theirs.truth.shape == volumes.truth.shape else None


def _figures(results: _Results) -> list[tuple[str, str]]:
    """What a reader wants to know first."""
    rows, found = results.rows, []
    cases = len({row.case for row in rows})
    if cases:
        found.append((str(cases), "validated cases" if results.run else "cases"))
    for name, meaning in (("leaderboard", "leaderboard score"), ("dice", "Dice"), ("cldice", "clDice")):
        if any(name in row.values for row in rows):
            found.append((significant(mean_of(rows, name)), f"mean {meaning}, 1 is best"))
    if any(BETTI_ERRORS[0] in row.values for row in rows):
        errors = " / ".join(significant(mean_of(rows, name)) for name in BETTI_ERRORS)
        found.append((errors, "mean errors: number of components / loops / cavities, 0 is best"))
    if not math.isnan(foreground_ratio(rows)):
        found.append((f"{foreground_ratio(rows):.2f}", "predicted by labelled foreground in the median case"))
    if results.run:
        epochs = sum(len(fold.epochs) for fold in results.run.folds)
        time = duration(sum(fold.duration_s for fold in results.run.folds))
        found.append((str(epochs), f"epochs in {len(results.run.folds)} fold(s), {time}"))
    return found


def _top(mine: _Results, other: _Results | None, figures: Sequence[tuple[str, str]], notes: Sequence[str]) -> str:
    about = []
    if mine.run:
        recipe = next((fold.recipe.name for fold in mine.run.folds if fold.recipe), "none (nnU-Net's own loss)")
        folds = ", ".join(fold.name.removeprefix("fold_") for fold in mine.run.folds)
        about = [
            ("recipe", recipe),
            ("plans, configuration", f"{mine.run.plans_name}, {mine.run.configuration}"),
            ("folds", folds),
        ]
    if other:
        about.append(("compared with", other.folder.name))
    ratio = foreground_ratio(mine.rows)
    warning = ""
    if not math.isnan(ratio) and not 1 / FAR_FROM_ONE < ratio < FAR_FROM_ONE:
        words = "fills too much" if ratio > 1 else "finds too little"
        warning = f'<p class="warning">The network {words}: it predicts {ratio:.2f} times the labelled foreground.</p>'
    if notes:
        warning += f'<p class="note"><a href="#notes">{len(notes)} remark(s) on what is missing here</a></p>'
    cards = "".join(card(value, meaning) for value, meaning in figures)
    return f'{facts(about)}<div class="cards">{cards}</div>{warning}'


def _training(results: _Results) -> str:
    if results.run is None:
        return ""
    folds = results.run.folds
    found = ""
    for index, fold in enumerate(folds):
        opened = "" if index else " open"
        found += f"<details{opened}><summary>{html.escape(fold.name)}</summary>{training_section(fold)}</details>"
    return found


def _comparison(mine: _Results, other: _Results) -> str:
    found = differences(mine.rows, other.rows)
    if not found:
        return "<p>The two have no scored case in common.</p>"
    curves = dice_of_both(mine.run, other.run) if mine.run and other.run else ""
    return f'{comparison_table(found, mine.name, other.name)}<div class="charts">{curves}</div>'
