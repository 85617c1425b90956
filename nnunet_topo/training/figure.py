"""Draws `progress_topo.png`: what the journal holds, for people."""

from __future__ import annotations

import io
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
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from nnunet_topo.errors import DataError
from nnunet_topo.training.atomic import write_atomically

# Okabe and Ito's colours, told apart by colour-blind people too; their yellow is darkened, being unreadable on white.
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6e6e6e"
TERM_COLORS = (BLUE, "#E69F00", GREEN, "#CC79A7", "#000000", "#56B4E9", VERMILLION, "#9A8600")
TERM_DASHES = ("-", "--", "-.", ":")
BAND = "#e9eef4"  # of every second phase
WIDTH_INCHES, DOTS_PER_INCH = 14.0, 100
FEW_EPOCHS = 30  # up to here every epoch gets a marker
TIMELINE_LEFT = 0.115
EVENT_MARK: dict[str, Any] = {"ls": "", "marker": "|", "mew": 1.5, "color": VERMILLION, "clip_on": False}
LEGEND: dict[str, Any] = {"borderaxespad": 0, "borderpad": 0, "columnspacing": 1.2, "handlelength": 2.2}
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
    contributions of the terms; weights, learning rate and foreground fraction; every term unweighted in a panel of
    its own, since their scales differ. Epochs without a value are gaps. Values far outside the usual range are cut
    off at the edge of the panel, and the panel says how many. Neither pyplot nor global settings are touched, so
    that nnU-Net's own progress.png stays as it is.

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
    history = _History(lines)
    events = [line for line in lines if line.get("kind") == "event"]
    with style.context(["default", STYLE]):
        figure = _drawn(history, events, recipe_name, list(phases), max(int(epochs_planned), history.last + 1))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    write_atomically(path, buffer.getvalue())


class _History:
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


def _drawn(
    history: _History, events: list[Mapping[str, Any]], recipe_name: str, phases: list[tuple[int, str]], planned: int
) -> Figure:
    terms = history.terms(("train", "terms"), ("validation", "terms"))
    columns = len(terms) if len(terms) <= 4 else 3 if len(terms) <= 6 else 4
    rows = math.ceil(len(terms) / max(columns, 1))
    kinds = list(dict.fromkeys(str(event.get("what")) for event in events))
    header = 0.98 + 0.17 * len(phases) + 0.2 * len(kinds)
    height = header + 7.95 + rows * 1.95
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    colors = {name: TERM_COLORS[index % len(TERM_COLORS)] for index, name in enumerate(terms)}
    left, right, gap = 0.04, 0.985, 0.042

    def panel(top: float, tall: float, index: int, count: int) -> Axes:
        wide = (right - left - gap * (count - 1)) / count
        axes = figure.add_axes((left + index * (wide + gap), 1 - (top + tall) / height, wide, tall / height))
        _background(axes, history, events, phases, planned)
        return axes

    _title_and_phases(figure, history, phases, planned, recipe_name, header)
    _timeline(figure, history, events, kinds, phases, planned)
    top = header + 0.3
    _loss(panel(top, 1.65, 0, 2), history)
    _pseudo_dice(panel(top, 1.65, 1, 2), history)
    top += 2.6
    _legend_line(figure, top - 0.38, {name: (colors[name], TERM_DASHES[i % 4]) for i, name in enumerate(terms)})
    _weighted([panel(top, 1.65, index, 2) for index in range(2)], history, terms, colors)
    top += 2.4
    _weights(panel(top, 1.65, 0, 3), history, terms, colors)
    _learning_rate(panel(top, 1.65, 1, 3), history)
    _foreground(panel(top, 1.65, 2, 3), history)
    top += 2.65
    _legend_line(figure, top - 0.38, {"unweighted terms, train": (BLUE, "-"), "validation": (VERMILLION, "-")})
    for index, name in enumerate(terms):
        _term(panel(top + index // columns * 1.95, 1.3, index % columns, columns), history, name)
    return figure


def _title_and_phases(
    figure: Figure, history: _History, phases: Phases, planned: int, recipe_name: str, header: float
) -> None:
    inch = 1 / figure.get_figheight()
    title = f"{_shortened(recipe_name, 60)}: {history.last + 1} of {planned} epochs"
    figure.text(0.012, 1 - 0.1 * inch, title, fontsize=13, weight="bold", va="top")
    for index, (start, label) in enumerate(phases):
        text = f"phase {index}, from epoch {start}:  {_shortened(label, 125)}"
        y = 1 - (header - 0.17 * (len(phases) - index) + 0.04) * inch
        figure.text(TIMELINE_LEFT, y, text, fontsize=9, va="center", color="#303030")


def _timeline(
    figure: Figure,
    history: _History,
    events: list[Mapping[str, Any]],
    kinds: list[str],
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
    for row, kind in enumerate(kinds, start=1):
        epochs = [int(event["epoch"]) for event in events if str(event.get("what")) == kind]
        axes.plot(epochs, [-row] * len(epochs), **EVENT_MARK, ms=9)
        names.append(f"{_shortened(kind, 15)} ({len(epochs)})")
    axes.set_yticks([-0.35, *(-row for row in range(1, len(kinds) + 1))], names)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(_ticks(12))
    axes.tick_params(axis="x", pad=1)


def _ticks(count: int) -> MaxNLocator:
    """At most that many round epochs."""
    return MaxNLocator(count, integer=True, min_n_ticks=1, steps=[1, 2, 2.5, 5, 10])


def _spans(phases: Phases, planned: int) -> list[tuple[int, int]]:
    """First epoch of each phase and the epoch after its last."""
    starts = [start for start, _ in phases]
    return list(zip(starts, [*starts[1:], planned], strict=True)) if starts else []


def _background(axes: Axes, history: _History, events: list[Mapping[str, Any]], phases: Phases, planned: int) -> None:
    """Epoch axis, shaded phases with their numbers along the upper edge, events as marks at the foot."""
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
            _note(axes, str(index), place, (0, 1), ha="center", va="bottom", fontsize=7.5, color=GREY)
    epochs = [int(event["epoch"]) for event in events if low <= int(event["epoch"]) <= high]
    axes.plot(epochs, [0] * len(epochs), **EVENT_MARK, ms=5, transform=axes.get_xaxis_transform())
    _note(axes, "epoch", (0.5, 0), (0, -17), ha="center", va="top")


def _note(axes: Axes, text: str, place: tuple[float, float], points: tuple[float, float], **style: Any) -> None:
    """Text at a place in fractions of the panel, moved by points.

    Titles and axis labels are notes too: matplotlib lays its own out anew at every drawing, which took a third of
    the time.
    """
    axes.annotate(text, place, points, xycoords="axes fraction", textcoords="offset points", **style)


def _title(axes: Axes, text: str, unit: str) -> None:
    _note(axes, text, (0, 1), (0, 11), fontsize=10, weight="bold")
    _note(axes, unit, (0, 1), (6.4 * len(text) + 8, 11), fontsize=8.5, color=GREY)


def _legend(axes: Axes) -> None:
    """A one-line legend at the right end of the title line: never on the curves."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1 + 10 / axes.bbox.height), ncols=4, **LEGEND)


def _line(
    axes: Axes, history: _History, values: np.ndarray, label: str, color: str, dash: str = "-", **style: Any
) -> None:
    """One curve; markers where the run is short, and where a value stands alone between gaps."""
    width = 1.0 if len(values) > 300 else 1.5
    axes.plot(history.epochs, values, ls=dash, lw=width, color=color, label=label, **style)
    finite = np.isfinite(values)
    beside = np.concatenate(([False], finite, [False]))
    dotted = finite & (~beside[:-2] & ~beside[2:] if len(values) > FEW_EPOCHS else True)
    if dotted.any():
        axes.plot(history.epochs[dotted], values[dotted], ls="", marker="o", ms=3.5, color=color)


def _limit(axes: Axes, *series: np.ndarray) -> None:
    """Set the y range to what is usual: a single exploded epoch would flatten every other one."""
    values = np.concatenate(series) if series else np.empty(0)
    values = values[np.isfinite(values)]
    if not len(values):
        axes.set_ylim(0, 1)
        _note(axes, "no values yet", (0.5, 0.5), (0, 0), ha="center", va="center", color=GREY)
        return
    low, high = np.percentile(values, (2, 98))
    reach = 2.5 * max(high - low, 1e-3 * abs(high), 1e-9)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    margin = 0.07 * max(np.ptp(inside), 0.02 * np.abs(inside).max(), 1e-9)
    axes.set_ylim(inside.min() - margin, inside.max() + margin)
    outside = len(values) - len(inside)
    if outside:
        far = values[np.argmax(np.abs(values - np.median(values)))]
        text = f"{outside} value{'s' if outside > 1 else ''} beyond the axis, up to {far:.3g}"
        _note(axes, text, (1, 0), (0, -17), ha="right", va="top", fontsize=8, color=VERMILLION)


def _loss(axes: Axes, history: _History) -> None:
    train, validation = history.series("train", "loss"), history.series("validation", "loss")
    _line(axes, history, train, "train", BLUE)
    _line(axes, history, validation, "validation", VERMILLION)
    _limit(axes, train, validation)
    _title(axes, "Loss", "weighted sum of the terms, another scale in each phase")
    _legend(axes)


def _pseudo_dice(axes: Axes, history: _History) -> None:
    classes = history.class_dice()
    if 1 < len(classes) <= 12:
        for values in classes:
            axes.plot(history.epochs, values, lw=0.6, color="#b0b0b0")
        axes.plot([], [], lw=0.6, color="#8c8c8c", label="each class")
    _line(axes, history, history.series("validation", "mean_pseudo_dice"), "mean", "#7db8dc")
    _line(axes, history, history.series("validation", "ema_pseudo_dice"), "moving average", BLUE)
    axes.set_ylim(-0.02, 1.02)
    _title(axes, "Pseudo Dice", "validation patches, 0 to 1")
    _legend(axes)


def _legend_line(figure: Figure, top: float, names: Mapping[str, tuple[str, str]]) -> None:
    """Colours and dashes by name on a line of its own, `top` inches below the upper edge."""
    handles = [Line2D([], [], color=color, ls=dash, lw=1.5) for color, dash in names.values()]
    length = min(24, int((90 * WIDTH_INCHES / max(len(names), 1) - 45) / 7))  # about 7 pixels a letter, 45 a sample
    labels = [
        " " + _shortened(name, max(length, 3)) for name in names
    ]  # the space: matplotlib leaves out what starts with "_"
    place = (0.04, 1 - top / figure.get_figheight())
    figure.legend(handles, labels, loc="lower left", bbox_to_anchor=place, ncols=max(len(names), 1), **LEGEND)


def _weighted(panels: Sequence[Axes], history: _History, terms: Sequence[str], colors: Mapping[str, str]) -> None:
    shown = []
    for axes, part in zip(panels, ("train", "validation"), strict=True):
        for index, name in enumerate(terms):
            shown.append(history.series(part, "weighted", name))
            _line(axes, history, shown[-1], name, colors[name], TERM_DASHES[index % 4])
        _title(axes, f"Terms weighted, {part}", "contribution to the loss")
    for axes in panels:
        _limit(axes, *shown)


def _weights(axes: Axes, history: _History, terms: Sequence[str], colors: Mapping[str, str]) -> None:
    for index, name in enumerate(terms):
        values = history.series("weights", name)
        _line(axes, history, values, name, colors[name], TERM_DASHES[index % 4], drawstyle="steps-mid")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _title(axes, "Weights", "colours of the terms as above")


def _learning_rate(axes: Axes, history: _History) -> None:
    values = history.series("lr")
    _line(axes, history, values, "learning rate", BLUE)
    if not _log_if_wide(axes, values, decades=1.0):
        axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
    axes.yaxis.set_major_formatter("{x:g}")
    _title(axes, "Learning rate", "per step")


def _foreground(axes: Axes, history: _History) -> None:
    predicted = history.series("validation", "foreground_predicted")
    labelled = history.series("validation", "foreground_labelled")
    _line(axes, history, labelled, "labelled", "#000000", "--")
    _line(axes, history, predicted, "predicted", VERMILLION)
    if not _log_if_wide(axes, np.concatenate((predicted, labelled)), decades=1.5):
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    _title(axes, "Foreground", "of valid voxels")
    _legend(axes)


def _log_if_wide(axes: Axes, values: np.ndarray, decades: float) -> bool:
    """Make the y axis logarithmic when all values are positive and span that many decades."""
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0 or values.max() < 10**decades * values.min():
        return False
    axes.set_yscale("log")
    few = values.max() < 10**2.5 * values.min()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axes.yaxis.set_minor_locator(NullLocator())
    return True


def _term(axes: Axes, history: _History, name: str) -> None:
    train, validation = history.series("train", "terms", name), history.series("validation", "terms", name)
    _line(axes, history, train, "train", BLUE)
    _line(axes, history, validation, "validation", VERMILLION)
    _limit(axes, train, validation)
    _title(axes, _shortened(name, 30), "")


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
