"""The panels of `progress_topo.png`, and the strokes that they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from nnunet_topo.training.figure_history import History

# Okabe and Ito's colours, told apart by colour-blind people too; their yellow is darkened, being unreadable on white.
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6e6e6e"
TERM_COLORS = (BLUE, "#E69F00", GREEN, "#CC79A7", "#000000", "#56B4E9", VERMILLION, "#9A8600")
TERM_DASHES = ("-", "--", "-.", ":")
BAND = "#e9eef4"  # of every second phase
MONITORS = ("reference_loss", "topology_error", "gradient_norm")
NAMED_PAIRS = 4
FEW_EPOCHS = 30  # up to here every epoch gets a marker
LEGEND: dict[str, Any] = {"borderaxespad": 0, "borderpad": 0, "columnspacing": 1.2, "handlelength": 2.2}


def note(axes: Axes, text: str, place: tuple[float, float], points: tuple[float, float], **style: Any) -> None:
    """Text at a place in fractions of the panel, moved by points.

    Titles and axis labels are notes too: matplotlib lays its own out anew at every drawing, which took a third of
    the time.
    """
    axes.annotate(text, place, points, xycoords="axes fraction", textcoords="offset points", **style)


def title(axes: Axes, text: str, unit: str) -> None:
    """Name of a panel and the unit or range of its values, above it."""
    note(axes, text, (0, 1), (0, 11), fontsize=10, weight="bold")
    note(axes, unit, (0, 1), (6.4 * len(text) + 8, 11), fontsize=8.5, color=GREY)


def legend(axes: Axes) -> None:
    """A one-line legend at the right end of the title line: never on the curves."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1 + 10 / axes.bbox.height), ncols=4, **LEGEND)


def curve(
    axes: Axes, history: History, values: np.ndarray, label: str, color: str, dash: str = "-", **style: Any
) -> None:
    """One curve; markers where the run is short, and where a value stands alone between gaps."""
    width = 1.0 if len(values) > 300 else 1.5
    axes.plot(history.epochs, values, ls=dash, lw=width, color=color, label=label, **style)
    finite = np.isfinite(values)
    beside = np.concatenate(([False], finite, [False]))
    dotted = finite & (~beside[:-2] & ~beside[2:] if len(values) > FEW_EPOCHS else True)
    if dotted.any():
        axes.plot(history.epochs[dotted], values[dotted], ls="", marker="o", ms=3.5, color=color)


def limit(axes: Axes, *series: np.ndarray) -> None:
    """Set the y range to what is usual: a single exploded epoch would flatten every other one."""
    values = np.concatenate(series) if series else np.empty(0)
    values = values[np.isfinite(values)]
    if not len(values):
        axes.set_ylim(0, 1)
        note(axes, "no values yet", (0.5, 0.5), (0, 0), ha="center", va="center", color=GREY)
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
        note(axes, text, (1, 0), (0, -17), ha="right", va="top", fontsize=8, color=VERMILLION)


def draw_loss(axes: Axes, history: History) -> None:
    """Training and validation loss, weighted as in each epoch."""
    train, validation = history.series("train", "loss"), history.series("validation", "loss")
    curve(axes, history, train, "train", BLUE)
    curve(axes, history, validation, "validation", VERMILLION)
    limit(axes, train, validation)
    title(axes, "Loss", "weighted sum of the terms, another scale in each phase")
    legend(axes)


def draw_pseudo_dice(axes: Axes, history: History) -> None:
    """nnU-Net's Dice over the validation patches, its moving average, and few classes by themselves."""
    classes = history.class_dice()
    if 1 < len(classes) <= 12:
        for values in classes:
            axes.plot(history.epochs, values, lw=0.6, color="#b0b0b0")
        axes.plot([], [], lw=0.6, color="#8c8c8c", label="each class")
    curve(axes, history, history.series("validation", "mean_pseudo_dice"), "mean", "#7db8dc")
    curve(axes, history, history.series("validation", "ema_pseudo_dice"), "moving average", BLUE)
    axes.set_ylim(-0.02, 1.02)
    title(axes, "Pseudo Dice", "validation patches, 0 to 1")
    legend(axes)


def draw_weighted(panels: Sequence[Axes], history: History, terms: Sequence[str], colors: Mapping[str, str]) -> None:
    """What each term contributes to the loss, training beside validation on one scale."""
    shown = []
    for axes, part in zip(panels, ("train", "validation"), strict=True):
        for index, name in enumerate(terms):
            shown.append(history.series(part, "weighted", name))
            curve(axes, history, shown[-1], name, colors[name], TERM_DASHES[index % 4])
        title(axes, f"Terms weighted, {part}", "contribution to the loss")
    for axes in panels:
        limit(axes, *shown)


def draw_weights(axes: Axes, history: History, terms: Sequence[str], colors: Mapping[str, str]) -> None:
    """Weight of each term."""
    for index, name in enumerate(terms):
        values = history.series("weights", name)
        curve(axes, history, values, name, colors[name], TERM_DASHES[index % 4], drawstyle="steps-mid")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    title(axes, "Weights", "colours of the terms as above")


def draw_learning_rate(axes: Axes, history: History) -> None:
    """Learning rate, and what the schedule alone would give where it was multiplied."""
    values, multiplier = history.series("lr"), history.series("lr_multiplier")
    multiplied = (np.nan_to_num(multiplier, nan=1.0) != 1).any()
    if multiplied:
        curve(axes, history, values / multiplier, "schedule alone", GREY, "--")
    curve(axes, history, values, "learning rate", BLUE)
    if not log_if_wide(axes, values, decades=1.0):
        axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
    axes.yaxis.set_major_formatter("{x:g}")
    title(axes, "Learning rate", "dashed: schedule alone" if multiplied else "per step")


def draw_foreground(axes: Axes, history: History) -> None:
    """Share of the valid voxels that is foreground."""
    predicted = history.series("validation", "foreground_predicted")
    labelled = history.series("validation", "foreground_labelled")
    curve(axes, history, labelled, "labelled", "#000000", "--")
    curve(axes, history, predicted, "predicted", VERMILLION)
    if not log_if_wide(axes, np.concatenate((predicted, labelled)), decades=1.5):
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    title(axes, "Foreground", "of valid voxels")
    legend(axes)


def draw_reference_loss(axes: Axes, history: History) -> None:
    """The loss that does not depend on the weights of the epoch."""
    values = history.series("monitors", "reference_loss")
    curve(axes, history, values, "reference loss", BLUE)
    limit(axes, values)
    title(axes, "Reference loss", "fixed patches")


def draw_topology_error(axes: Axes, history: History) -> None:
    """Relative error of the Betti numbers."""
    curve(axes, history, history.series("monitors", "topology_error"), "topology error", VERMILLION)
    axes.set_ylim(-0.02, 1.02)
    title(axes, "Topology error", "fixed patches, 0 to 1")


def draw_gradient_norm(axes: Axes, history: History) -> None:
    """Mean norm before clipping."""
    values = history.series("monitors", "gradient_norm")
    curve(axes, history, values, "gradient norm", GREEN)
    if not log_if_wide(axes, values, decades=1.0):
        limit(axes, values)
    title(axes, "Gradient norm", "before clipping")


def conflict_styles(history: History) -> dict[str, tuple[str, str]]:
    """Colour and dash of every pair of terms whose gradients were compared, the most conflicting first.

    All but the first few are grey.
    """
    pairs = history.terms(("conflict",))
    means = {}
    for pair in pairs:
        values = history.series("conflict", pair)
        means[pair] = values[np.isfinite(values)].mean() if np.isfinite(values).any() else 1.0
    order = sorted(pairs, key=means.__getitem__)
    named = {pair: (TERM_COLORS[index], "-") for index, pair in enumerate(order[:NAMED_PAIRS])}
    return {pair: named.get(pair, ("#b0b0b0", "-")) for pair in order}


def draw_conflict(axes: Axes, history: History) -> None:
    """Cosines between the gradients of the terms."""
    for pair, (color, dash) in reversed(conflict_styles(history).items()):
        values = history.series("conflict", pair)
        measured = np.isfinite(values)  # every k-th epoch: joined, or single points would be all there is to see
        axes.plot(history.epochs[measured], values[measured], ls=dash, marker="o", ms=3, color=color, label=pair)
    axes.axhline(0, color=GREY, lw=0.8)
    axes.set_ylim(-1.05, 1.05)
    title(axes, "Conflict", "cosine of gradients")


def log_if_wide(axes: Axes, values: np.ndarray, decades: float) -> bool:
    """Make the y axis logarithmic when all values are positive and span that many decades."""
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0 or values.max() < 10**decades * values.min():
        return False
    axes.set_yscale("log")
    few = values.max() < 10**2.5 * values.min()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axes.yaxis.set_minor_locator(NullLocator())
    return True


def draw_term(axes: Axes, history: History, name: str) -> None:
    """One term unweighted."""
    train, validation = history.series("train", "terms", name), history.series("validation", "terms", name)
    curve(axes, history, train, "train", BLUE)
    curve(axes, history, validation, "validation", VERMILLION)
    limit(axes, train, validation)
    title(axes, shortened(name, 30), "")


def shortened(text: str, length: int) -> str:
    """The text, cut to a length with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"
