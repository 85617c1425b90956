"""The part of a report about the training: curves, balance of the loss terms, events."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_topo.evaluation.report_charts import Curve, Frame, line_chart, share_chart, stacked_shares
from nnunet_topo.evaluation.report_html import cell, table
from nnunet_topo.evaluation.report_run import FoldRun, Run
from nnunet_topo.training.figure import BLUE, GREY, TERM_COLORS, VERMILLION

# Of the journal's monitors, those that no other chart shows.
MONITORS = {
    "reference_loss": ("Reference loss", "fixed patches, weights that never change"),
    "topology_error": ("Topology error", "fixed patches, 0 is best"),
    "foreground_spread": ("Spread of the foreground", "over the validation patches"),
    "gradient_norm": ("Gradient norm", "before clipping"),
}
READING = (
    "Across: epochs. Every second phase is shaded, its number stands above. Orange marks at the foot are interventions."
)
Series = NDArray[np.float64]


def training_section(fold: FoldRun) -> str:
    """Charts, balance of terms and events of one fold."""
    if not fold.epochs:
        return f"<p>{html.escape('. '.join(fold.notes) or 'No epoch was finished')}.</p>"
    frame = _frame(fold)
    charts = [
        line_chart("Loss", _loss_note(fold), frame, _both(fold, "loss")),
        line_chart("Pseudo Dice", "validation patches, 1 is best", frame, _pseudo_dice(fold)),
        share_chart("Which term pulls", "share of each term in the weighted loss, training", frame, _weighted(fold)),
        line_chart(
            "Foreground",
            "share of the valid voxels, validation patches",
            frame,
            _foreground(fold),
            percent=True,
            zero=True,
        ),
        line_chart("Learning rate", "", frame, [Curve("learning rate", BLUE, _series(fold, "lr"))], zero=True),
    ]
    for name, (title, note) in MONITORS.items():
        charts.append(line_chart(title, note, frame, [Curve(name, BLUE, _series(fold, "monitors", name))]))
    if len(_terms(fold)) > 1:
        for term in _terms(fold):
            charts.append(line_chart(term, "this term alone, unweighted", frame, _both(fold, "terms", term)))
    return "".join(
        (
            f"<p class=note>{html.escape('. '.join(fold.notes))}.</p>" if fold.notes else "",
            f"<p class=note>{READING}</p>",
            f'<div class="charts">{"".join(charts)}</div>',
            _balance_table(fold),
            _events_table(fold),
        )
    )


def dice_of_both(run: Run, other: Run) -> str:
    """One chart with the pseudo Dice of every fold of two runs."""
    folds = [fold for side in (run, other) for fold in side.folds if fold.epochs]
    if not folds:
        return ""
    last = max(int(fold.epochs[-1]["epoch"]) for fold in folds)
    frame = Frame(0, last + 1)
    curves = []
    for side, color, name in ((run, VERMILLION, "this run"), (other, BLUE, "the other")):
        for index, fold in enumerate(side.folds):
            if fold.epochs:
                values = np.full(last + 1, np.nan)
                start = int(fold.epochs[0]["epoch"])
                found = _series(fold, "validation", "mean_pseudo_dice")
                values[start : start + len(found)] = found
                curves.append(Curve(f"{name}, {fold.name}", color, values, ("", "5 3", "1 3", "7 2 1 2")[index % 4]))
    return line_chart("Pseudo Dice of both", "validation patches, 1 is best", frame, curves)


def term_shares(fold: FoldRun) -> list[tuple[str, dict[str, float]]]:
    """Mean share of each term in the weighted training loss, phase by phase.

    Returns:
        (number of the phase, share by term), phases without a finished epoch left out.
    """
    terms = _weighted(fold)
    if not terms:
        return []
    shares = stacked_shares([curve.values for curve in terms])
    first = int(fold.epochs[0]["epoch"])
    starts = [start for start, _ in fold.phases] or [0]
    found = []
    for index, (start, stop) in enumerate(zip(starts, [*starts[1:], math.inf], strict=True)):
        inside = [column for column in range(shares.shape[1]) if start <= first + column < stop]
        columns = shares[:, inside]
        columns = columns[:, np.isfinite(columns).all(axis=0)]
        if columns.size:
            means = columns.mean(axis=1)
            found.append((str(index), {c.name: float(m) for c, m in zip(terms, means, strict=True)}))
    return found


def _frame(fold: FoldRun) -> Frame:
    first, last = int(fold.epochs[0]["epoch"]), int(fold.epochs[-1]["epoch"])
    events = [
        (int(event["epoch"]), f"epoch {event['epoch']}: {event.get('what')}, {event.get('why')}")
        for event in fold.interventions
        if first <= int(event["epoch"]) <= last
    ]
    return Frame(first, last - first + 1, [start for start, _ in fold.phases], events)


def _series(fold: FoldRun, *keys: str) -> Series:
    """What is found by following the keys, for every epoch from the first to the last."""
    first, last = int(fold.epochs[0]["epoch"]), int(fold.epochs[-1]["epoch"])
    values = np.full(last - first + 1, np.nan)
    for line in fold.epochs:
        value: Any = line
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, (int, float)) and math.isfinite(value):
            values[int(line["epoch"]) - first] = value
    return values


def _both(fold: FoldRun, *keys: str) -> list[Curve]:
    return [
        Curve("training", BLUE, _series(fold, "train", *keys)),
        Curve("validation", VERMILLION, _series(fold, "validation", *keys), "5 3"),
    ]


def _loss_note(fold: FoldRun) -> str:
    return "weighted sum: jumps where a phase begins are the new weights" if len(fold.phases) > 1 else ""


def _pseudo_dice(fold: FoldRun) -> list[Curve]:
    return [
        Curve("mean of the classes", "#56B4E9", _series(fold, "validation", "mean_pseudo_dice")),
        Curve("its moving average", BLUE, _series(fold, "validation", "ema_pseudo_dice")),
    ]


def _foreground(fold: FoldRun) -> list[Curve]:
    return [
        Curve("labelled", GREY, _series(fold, "validation", "foreground_labelled"), "5 3"),
        Curve("predicted", VERMILLION, _series(fold, "validation", "foreground_predicted")),
    ]


def _terms(fold: FoldRun) -> list[str]:
    names: dict[str, None] = {}
    for line in fold.epochs:
        for part in ("train", "validation"):
            names.update(dict.fromkeys((line.get(part) or {}).get("terms") or {}))
    return list(names)


def _weighted(fold: FoldRun) -> list[Curve]:
    names = _terms(fold)
    if len(names) < 2:  # one term alone is all of the loss
        return []
    colors = [TERM_COLORS[index % len(TERM_COLORS)] for index in range(len(names))]
    return [
        Curve(name, color, _series(fold, "train", "weighted", name)) for name, color in zip(names, colors, strict=True)
    ]


def _balance_table(fold: FoldRun) -> str:
    shares = term_shares(fold)
    if not shares:
        return ""
    weights = dict(zip(map(str, range(len(fold.phases))), fold.phases, strict=True))
    names = list(shares[0][1])
    rows = []
    for phase, by_term in shares:
        start, text = weights.get(phase, (0, ""))
        rows.append(
            [
                cell(phase),
                cell(start),
                cell(text),
                *(cell(f"{100 * by_term[name]:.1f} %", by_term[name]) for name in names),
            ]
        )
    largest = max(shares[-1][1], key=lambda name: shares[-1][1][name])
    idle = [name for name, share in shares[-1][1].items() if 0 < share < 0.02]
    words = f"In the last phase {largest} makes {100 * shares[-1][1][largest]:.0f} % of the loss."
    if idle:
        words += f" {', '.join(idle)}: less than 2 %, so it hardly matters to the optimiser."
    return f"<h4>Balance of the terms</h4><p>{html.escape(words)}</p>" + table(
        ("phase", "from epoch", "weights", *(f"share of {name}" for name in names)), rows
    )


def _events_table(fold: FoldRun) -> str:
    if not fold.events:
        return ""
    rows = [
        [cell(int(event["epoch"])), cell(str(event.get("what"))), cell(str(event.get("why"))), cell(_change(event))]
        for event in fold.events
    ]
    shown = "open" if len(rows) <= 12 else ""
    return (
        f"<details {shown}><summary>{len(rows)} events: phases and interventions</summary>"
        + table(("epoch", "what", "why", "from → to"), rows)
        + "</details>"
    )


def _change(event: Mapping[str, Any]) -> str:
    before, after = (_short(event.get(key)) for key in ("from", "to"))
    return f"{before} → {after}" if before else after


def _short(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(item)}" for key, item in value.items())
    return f"{value:.5g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
