"""Draws `progress_topo.png`: what the journal holds, for people."""

from __future__ import annotations

import io
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nnunet_topo.training.atomic import write_atomically
from nnunet_topo.training.figure_history import History
from nnunet_topo.training.panels import (
    BAND,
    BLUE,
    GREEN,
    GREY,
    LEGEND,
    MONITORS,
    NAMED_PAIRS,
    TERM_COLORS,
    TERM_DASHES,
    VERMILLION,
    conflict_styles,
    draw_conflict,
    draw_foreground,
    draw_gradient_norm,
    draw_learning_rate,
    draw_loss,
    draw_pseudo_dice,
    draw_reference_loss,
    draw_term,
    draw_topology_error,
    draw_weighted,
    draw_weights,
    note,
    shortened,
)

WIDTH_INCHES, DOTS_PER_INCH = 14.0, 100
TIMELINE_LEFT = 0.115
EVENT_MARK: dict[str, Any] = {"ls": "", "marker": "|", "mew": 1.5, "clip_on": False}
CALENDAR_EVENTS = ("start", "resume", "phase")  # they follow from the recipe or from outside: nothing reacted
FEW_EVENTS = 20  # of a kind: more of them as lines through the panels would hide the curves
STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#c8c8c8",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "lines.linewidth": 1.4,
    "text.parse_math": False,  # a "$" in the name of a term is no formula
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}

Phases = Sequence[tuple[int, str]]


def draw_progress(
    lines: Iterable[Mapping[str, Any]],
    path: str | os.PathLike[str],
    *,
    recipe_name: str,
    phases: Phases = (),
    epochs_planned: int,
) -> None:
    """Write the figure of a run as a PNG of 1400 pixels width.

    Top to bottom: the planned run with its phases, how far it got and the events; loss and pseudo Dice; weighted
    contributions of the terms; weights, learning rate and foreground fraction; what the controls judge by; every term
    unweighted in a panel of its own, since their scales differ. Every kind of event has a colour; what reacted to the
    training is a line through the panels that it is about. Epochs without a value are gaps. Values far outside the
    usual range are cut off at the edge of the panel, and the panel says how many. Neither pyplot nor global settings
    are touched, so that nnU-Net's own progress.png stays as it is.

    Args:
        lines: of the journal, both kinds, any order; of two lines of one epoch the later counts.
        path: file to write, replaced in one step.
        recipe_name: for the title.
        phases: (first epoch, label) of each, ascending.
        epochs_planned: length of the run, >= 1.

    Raises:
        DataError: there is no line of kind `epoch`.
    """
    lines = list(lines)
    history = History(lines)
    events = [line for line in lines if line.get("kind") == "event"]
    with style.context(["default", STYLE]):
        figure = _drawn(history, events, recipe_name, list(phases), max(int(epochs_planned), history.last + 1))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    write_atomically(path, buffer.getvalue())


def _drawn(
    history: History, events: list[Mapping[str, Any]], recipe_name: str, phases: list[tuple[int, str]], planned: int
) -> Figure:
    terms = history.terms(("train", "terms"), ("validation", "terms"))
    columns = len(terms) if len(terms) <= 4 else 3 if len(terms) <= 6 else 4
    rows = math.ceil(len(terms) / max(columns, 1))
    monitored = any(np.isfinite(history.series("monitors", name)).any() for name in MONITORS)
    kinds = _event_colors(events)
    conflict = conflict_styles(history)
    header = 0.98 + 0.17 * len(phases) + 0.2 * len(kinds)
    height = header + 7.95 + (2.4 + 0.25 * bool(conflict)) * monitored + rows * 1.95
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    colors = {name: TERM_COLORS[index % len(TERM_COLORS)] for index, name in enumerate(terms)}
    left, right, gap = 0.04, 0.985, 0.042

    def panel(top: float, tall: float, index: int, count: int, *, judged: bool = False) -> Axes:
        wide = (right - left - gap * (count - 1)) / count
        axes = figure.add_axes((left + index * (wide + gap), 1 - (top + tall) / height, wide, tall / height))
        _background(axes, history, events, kinds, phases, planned, reactions=judged)
        return axes

    _title_and_phases(figure, history, phases, planned, recipe_name, header)
    _timeline(figure, history, events, kinds, phases, planned)
    top = header + 0.3
    draw_loss(panel(top, 1.65, 0, 2, judged=True), history)
    draw_pseudo_dice(panel(top, 1.65, 1, 2, judged=True), history)
    top += 2.6
    legend_line(figure, top - 0.38, {name: (colors[name], TERM_DASHES[i % 4]) for i, name in enumerate(terms)})
    draw_weighted([panel(top, 1.65, index, 2) for index in range(2)], history, terms, colors)
    top += 2.4
    draw_weights(panel(top, 1.65, 0, 3), history, terms, colors)
    draw_learning_rate(panel(top, 1.65, 1, 3, judged=True), history)
    draw_foreground(panel(top, 1.65, 2, 3), history)
    if monitored:
        top += 2.4 + 0.25 * bool(conflict)
        drawers = [draw_reference_loss, draw_topology_error, draw_gradient_norm]
        if conflict:
            drawers.append(draw_conflict)
            named = {pair.replace("|", ", "): style for pair, style in list(conflict.items())[:NAMED_PAIRS]}
            legend_line(figure, top - 0.38, {f"conflict of {pair}": style for pair, style in named.items()}, right=True)
        for index, draw in enumerate(drawers):
            draw(panel(top, 1.65, index, len(drawers), judged=True), history)
    top += 2.65
    legend_line(figure, top - 0.38, {"unweighted terms, train": (BLUE, "-"), "validation": (VERMILLION, "-")})
    for index, name in enumerate(terms):
        draw_term(panel(top + index // columns * 1.95, 1.3, index % columns, columns), history, name)
    return figure


def _title_and_phases(
    figure: Figure, history: History, phases: Phases, planned: int, recipe_name: str, header: float
) -> None:
    inch = 1 / figure.get_figheight()
    title = f"{shortened(recipe_name, 60)}: {history.last + 1} of {planned} epochs"
    figure.text(0.012, 1 - 0.1 * inch, title, fontsize=13, weight="bold", va="top")
    for index, (start, label) in enumerate(phases):
        text = f"phase {index}, from epoch {start}:  {shortened(label, 125)}"
        y = 1 - (header - 0.17 * (len(phases) - index) + 0.04) * inch
        figure.text(TIMELINE_LEFT, y, text, fontsize=9, va="center", color="#303030")


def _timeline(
    figure: Figure,
    history: History,
    events: list[Mapping[str, Any]],
    kinds: Mapping[str, str],
    phases: Phases,
    planned: int,
) -> None:
    """The planned run as a bar of phases, how far it got, and a row of marks for each kind of event."""
    inch = 1 / figure.get_figheight()
    tall, wide = 0.26 + 0.2 * len(kinds), 0.985 - TIMELINE_LEFT
    axes = figure.add_axes((TIMELINE_LEFT, 1 - (0.4 + tall) * inch, wide, tall * inch))
    axes.set(xlim=(-0.5, planned - 0.5), ylim=(-len(kinds) - 0.5, 0.8))
    axes.grid(False)
    for index, (start, end) in enumerate(_spans(phases, planned)):
        if index % 2:
            axes.axvspan(start - 0.5, end - 0.5, color=BAND, lw=0)
        if index:
            axes.axvline(start - 0.5, color=GREY, lw=0.8)
        pixels = (end - start) / planned * wide * WIDTH_INCHES * DOTS_PER_INCH
        if pixels > 10:
            name = f"phase {index}" if pixels > 60 else str(index)
            axes.text((start + end - 1) / 2, 0.2, name, ha="center", va="center", fontsize=8.5)
    finished = max(history.last + 0.5, 0.004 * planned)
    axes.plot((-0.5, finished), (-0.35, -0.35), color=GREEN, lw=4, solid_capstyle="butt")
    names = ["finished"]
    for row, (kind, color) in enumerate(kinds.items(), start=1):
        epochs = _epochs_of(kind, events)
        axes.plot(epochs, [-row] * len(epochs), **EVENT_MARK, ms=9, color=color)
        names.append(f"{shortened(kind, 15)} ({len(epochs)})")
    axes.set_yticks([-0.35, *(-row for row in range(1, len(kinds) + 1))], names)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(_ticks(12))
    axes.tick_params(axis="x", pad=1)


def _event_colors(events: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Colour of each kind of event, in the order in which they first happened."""
    kinds = dict.fromkeys(str(event.get("what")) for event in events)
    colors = itertools.cycle((VERMILLION, BLUE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#9A8600"))
    return {kind: GREY if kind in CALENDAR_EVENTS else next(colors) for kind in kinds}


def _epochs_of(kind: str, events: Iterable[Mapping[str, Any]]) -> list[int]:
    return [int(event["epoch"]) for event in events if str(event.get("what")) == kind]


def _ticks(count: int) -> MaxNLocator:
    """At most that many round epochs."""
    return MaxNLocator(count, integer=True, min_n_ticks=1, steps=[1, 2, 2.5, 5, 10])


def _spans(phases: Phases, planned: int) -> list[tuple[int, int]]:
    """First epoch of each phase and the epoch after its last."""
    starts = [start for start, _ in phases]
    return list(zip(starts, [*starts[1:], planned], strict=True)) if starts else []


def _background(
    axes: Axes,
    history: History,
    events: list[Mapping[str, Any]],
    kinds: Mapping[str, str],
    phases: Phases,
    planned: int,
    *,
    reactions: bool,
) -> None:
    """Epoch axis, shaded phases with their numbers along the upper edge, events as marks at the foot or as lines."""
    low, high = history.first - 0.5, history.last + 0.5
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(_ticks(7))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    for index, (start, end) in enumerate(_spans(phases, planned)):
        left, right = max(start - 0.5, low), min(end - 0.5, high)
        if right <= left:
            continue
        if index % 2:
            axes.axvspan(left, right, color=BAND, lw=0, zorder=0)
        if index and left > low:
            axes.axvline(left, color=GREY, lw=0.8, zorder=1)
        if len(phases) > 1 and (right - left) / (high - low) > 0.04:
            place = ((left - low + right - low) / 2 / (high - low), 1.0)
            note(axes, str(index), place, (0, 1), ha="center", va="bottom", fontsize=7.5, color=GREY)
    for kind, color in kinds.items():
        epochs = [epoch for epoch in _epochs_of(kind, events) if low <= epoch <= high]
        axes.plot(epochs, [0] * len(epochs), **EVENT_MARK, ms=5, color=color, transform=axes.get_xaxis_transform())
        if reactions and kind not in CALENDAR_EVENTS and len(epochs) <= FEW_EVENTS:
            for epoch in epochs:
                axes.axvline(epoch, color=color, lw=0.9, ls=(0, (4, 2)), zorder=1.5)
    note(axes, "epoch", (0.5, 0), (0, -17), ha="center", va="top")


def legend_line(figure: Figure, top: float, names: Mapping[str, tuple[str, str]], *, right: bool = False) -> None:
    """Colours and dashes by name on a line of its own, `top` inches below the upper edge."""
    handles = [Line2D([], [], color=color, ls=dash, lw=1.5) for color, dash in names.values()]
    length = min(24, int((90 * WIDTH_INCHES / max(len(names), 1) - 45) / 7))  # about 7 pixels a letter, 45 a sample
    labels = [
        " " + shortened(name, max(length, 3)) for name in names
    ]  # the space: matplotlib leaves out what starts with "_"
    place = (0.985 if right else 0.04, 1 - top / figure.get_figheight())
    figure.legend(
        handles,
        labels,
        loc="lower right" if right else "lower left",
        bbox_to_anchor=place,
        ncols=max(len(names), 1),
        **LEGEND,
    )
