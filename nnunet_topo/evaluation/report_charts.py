"""Small line charts as inline SVG: crisp at every width, and a few kilobytes each."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

WIDTH, HEIGHT = 360, 190  # as wide as a phone, so that the letters have one size everywhere
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 14, 24
MAX_POINTS = 360
Series = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: in the legend.
        color: as CSS has it.
        values: (epochs,), NaN where there is none.
        dash: of SVG, empty for a solid line.
    """

    name: str
    color: str
    values: Series
    dash: str = ""


@dataclass(frozen=True)
class Frame:
    """What all charts of a run share.

    Attributes:
        first: epoch of the first value.
        count: number of epochs.
        phases: first epoch of each phase.
        events: (epoch, text) of what to mark besides phases.
    """

    first: int
    count: int
    phases: Sequence[int] = ()
    events: Sequence[tuple[int, str]] = ()

    def x(self, epoch: float) -> float:
        """Place of an epoch, or of a border between two."""
        share = (epoch - self.first + 0.5) / max(self.count, 1)
        return LEFT + (WIDTH - LEFT - RIGHT) * share


def line_chart(
    title: str, note: str, frame: Frame, curves: Sequence[Curve], *, percent: bool = False, zero: bool = False
) -> str:
    """A chart of curves over epochs.

    Args:
        title: what is drawn.
        note: its unit, or how to read it.
        frame: epochs, phases and events.
        curves: empty ones are left out.
        percent: values are shares.
        zero: the axis starts at 0.

    Returns:
        A `figure` element; an empty text when no curve has a value.
    """
    curves = [curve for curve in curves if np.isfinite(curve.values).any()]
    if not curves:
        return ""
    low, high, outside = _limits(np.concatenate([curve.values for curve in curves]), zero)
    body = "".join(_path(frame, curve, low, high) for curve in curves)
    more = f"; {outside} value{'s' * (outside > 1)} beyond the axis" if outside else ""
    last = "; ".join(f"{curve.name} ends at {_last(curve.values, percent)}" for curve in curves)
    legend = [(curve.name, curve.color, curve.dash) for curve in curves]
    return _figure(title, note + more, legend, frame, low, high, body, percent, f"{title} over the epochs: {last}")


def share_chart(title: str, note: str, frame: Frame, curves: Sequence[Curve]) -> str:
    """A chart in which the curves' absolute values are stacked to 100 %."""
    curves = [curve for curve in curves if np.nansum(np.abs(curve.values)) > 0]
    if not curves:
        return ""
    shares = stacked_shares([curve.values for curve in curves])
    edges = np.vstack([np.zeros(frame.count), np.nancumsum(shares, axis=0)])
    body = ""
    for index, curve in enumerate(curves):
        places = [frame.x(frame.first + epoch - 0.5 + side) for epoch in range(frame.count) for side in (0, 1)]
        above, below = (np.repeat(edges[row], 2) for row in (index + 1, index))
        points = [*zip(places, above, strict=True), *zip(places[::-1], below[::-1], strict=True)]
        text = " ".join(f"{x:.1f},{_y(y, 0, 1):.1f}" for x, y in points)
        body += f'<polygon points="{text}" fill="{curve.color}" fill-opacity=".85"/>'
    legend = [(curve.name, curve.color, "fill") for curve in curves]
    words = "; ".join(
        f"{curve.name} {100 * _finite_mean(share):.0f} %" for curve, share in zip(curves, shares, strict=True)
    )
    return _figure(title, note, legend, frame, 0.0, 1.0, body, True, f"{title}, mean over the epochs: {words}")


def stacked_shares(values: Sequence[Series]) -> NDArray[np.float64]:
    """Share of each of T series in the sum of their absolute values, (T, epochs); NaN where all are missing."""
    absolute = np.abs(np.stack(list(values)))
    total = np.nansum(absolute, axis=0)
    shares = np.where(np.isfinite(absolute), absolute, 0.0) / np.where(total > 0, total, 1.0)
    shares[:, total <= 0] = np.nan
    return np.asarray(shares)


def scatter_chart(title: str, note: str, points: Sequence[tuple[float, float, str]]) -> str:
    """Shares predicted (up) against labelled (right) with the line where both are equal.

    Args:
        title: what is drawn.
        note: how to read it.
        points: (labelled, predicted, case).
    """
    if not points:
        return ""
    top = 1.08 * max(max(point[:2]) for point in points) or 1.0
    frame = Frame(0, 1)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / top

    body = f'<path d="M{x(0):.1f},{_y(0, 0, top):.1f}L{x(top):.1f},{_y(top, 0, top):.1f}" class="even"/>'
    for labelled, predicted, case in points:
        words = f"{case}: labelled {100 * labelled:.2f} %, predicted {100 * predicted:.2f} %"
        place = f'cx="{x(labelled):.1f}" cy="{_y(predicted, 0, top):.1f}"'
        body += f'<circle {place} r="4" class="dot"><title>{html.escape(words)}</title></circle>'
    for value in _ticks(0, top, 4):
        body += f'<text x="{x(value):.1f}" y="{HEIGHT - 9}" text-anchor="middle">{100 * value:.3g} %</text>'
    ratio = float(np.median([predicted / labelled for labelled, predicted, _ in points if labelled] or [math.nan]))
    words = f"{title}: the median case has {ratio:.2f} times the labelled foreground"
    return _figure(title, note, [], frame, 0, top, body, True, words, epochs=False)


def _figure(
    title: str,
    note: str,
    legend: Sequence[tuple[str, str, str]],
    frame: Frame,
    low: float,
    high: float,
    body: str,
    percent: bool,
    words: str,
    *,
    epochs: bool = True,
) -> str:
    keys = "".join(
        '<span><svg class="key" viewBox="0 0 22 10" aria-hidden="true">'
        + (
            f'<rect width="14" height="10" x="4" fill="{color}"/>'
            if dash == "fill"
            else f'<path d="M1,5H21" stroke="{color}" stroke-width="2.4" stroke-dasharray="{dash}"/>'
        )
        + f"</svg>{html.escape(name)}</span>"
        for name, color, dash in legend
    )
    return (
        f'<figure class="chart"><figcaption><b>{html.escape(title)}</b> <small>{html.escape(note)}</small>'
        f'<div class="legend">{keys}</div></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(words)}">'
        + (_background(frame) if epochs else "")
        + _axis(low, high, percent)
        + body
        + (_marks(frame) if epochs else "")
        + "</svg></figure>"
    )


def _background(frame: Frame) -> str:
    """Every second phase shaded, its number above, and epochs below."""
    found = ""
    starts = list(frame.phases)
    end = frame.first + frame.count
    for index, (start, stop) in enumerate(zip(starts, [*starts, end][1:], strict=True)):
        left, right = frame.x(max(start, frame.first) - 0.5), frame.x(min(stop, end) - 0.5)
        if right <= left:
            continue
        if index % 2:
            size = f'width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}"'
            found += f'<rect x="{left:.1f}" y="{TOP}" {size} class="phase"/>'
        if len(starts) > 1 and right - left > 12:
            found += f'<text x="{(left + right) / 2:.1f}" y="{TOP - 4}" text-anchor="middle">{index}</text>'
    last = frame.first + frame.count - 1
    for epoch in _ticks(frame.first, last, 6, whole=True) if frame.count > 1 else [frame.first]:
        found += f'<text x="{frame.x(epoch):.1f}" y="{HEIGHT - 9}" text-anchor="middle">{epoch:g}</text>'
    return found


def _marks(frame: Frame) -> str:
    foot = HEIGHT - BOTTOM
    return "".join(
        f'<path d="M{frame.x(epoch):.1f},{foot}v-8" class="event"><title>{html.escape(text)}</title></path>'
        for epoch, text in frame.events
    )


def _axis(low: float, high: float, percent: bool) -> str:
    found = ""
    for value in _ticks(low, high, 5):
        text = f"{100 * value:.4g} %" if percent else f"{value:.4g}"
        place = _y(value, low, high)
        found += f'<path d="M{LEFT},{place:.1f}H{WIDTH - RIGHT}" class="grid"/>'
        found += f'<text x="{LEFT - 4}" y="{place + 3.5:.1f}" text-anchor="end">{text}</text>'
    return found


def _path(frame: Frame, curve: Curve, low: float, high: float) -> str:
    pieces, pen_down = [], False
    for index in _thinned(curve.values):
        value = curve.values[index]
        if not math.isfinite(value):
            pen_down = False
            continue
        place = f"{frame.x(frame.first + int(index)):.1f},{_y(min(max(value, low), high), low, high):.1f}"
        # The dot of zero length shows a value that stands alone.
        pieces.append(f"L{place}" if pen_down else f"M{place}h0")
        pen_down = True
    dash = f' stroke-dasharray="{curve.dash}"' if curve.dash else ""
    return f'<path d="{"".join(pieces)}" class="curve" stroke="{curve.color}"{dash}/>'


def _thinned(values: Series) -> NDArray[np.intp]:
    """Indices of so many values as the chart can show: of every group the lowest and the highest."""
    if len(values) <= 2 * MAX_POINTS:
        return np.arange(len(values))
    chosen = {0, len(values) - 1}
    for group in np.array_split(np.arange(len(values)), MAX_POINTS):
        finite = group[np.isfinite(values[group])]
        chosen |= (
            {int(finite[values[finite].argmin()]), int(finite[values[finite].argmax()])}
            if len(finite)
            else {int(group[0])}
        )
    return np.array(sorted(chosen))


def _limits(values: Series, zero: bool) -> tuple[float, float, int]:
    """Range of what is usual, and how many values lie outside: one exploded epoch would flatten all others."""
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, (2, 98))
    reach = 2.5 * max(high - low, 1e-3 * abs(high), 1e-9)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    bottom, top = float(inside.min()), float(inside.max())
    margin = 0.06 * max(top - bottom, 0.02 * abs(top), 1e-9)
    return (min(0.0, bottom) if zero else bottom - margin), top + margin, len(values) - len(inside)


def _ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    places = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    return [float(place) for place in places if low - 1e-12 <= place <= high + 1e-12]


def _y(value: float, low: float, high: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / max(high - low, 1e-12))


def _last(values: Series, percent: bool) -> str:
    finite = values[np.isfinite(values)]
    return f"{100 * finite[-1]:.3g} %" if percent else f"{finite[-1]:.4g}"


def _finite_mean(values: Series) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else 0.0
