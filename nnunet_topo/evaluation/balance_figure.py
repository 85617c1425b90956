"""Pictures of the foreground balance: a histogram for the terminal, and one for a file."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nnunet_topo.evaluation.balance import Balance, CaseBalance
from nnunet_topo.training.atomic import write_atomically

_BINS, _BAR = 12, 24
_LABELLED, _PREDICTED = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermillion


def text_histogram(cases: Sequence[CaseBalance]) -> list[str]:
    """Lines that show how the labelled and the predicted shares are spread over the cases.

    Args:
        cases: at least one.

    Returns:
        A heading and a line per bin: its range, and a bar and a number of cases for either.
    """
    edges = share_edges(cases)
    counts = _counts(cases, edges)
    longest = max(1, int(counts.max()))
    lines = [f"{'foreground share':<17}  {'labelled':<{_BAR + 5}} predicted"]
    for low, high, labelled, predicted in zip(edges[:-1], edges[1:], *counts, strict=True):
        bars = (f"{'#' * _length(count, longest):<{_BAR}} {count or '':<4}" for count in (labelled, predicted))
        lines.append(f"{low:>7.2%} - {high:>7.2%}  {' '.join(bars)}".rstrip())
    return lines


def draw_balance(balances: Sequence[Balance], path: str | os.PathLike[str]) -> None:
    """Write a PNG with a row for each folder: histogram of the shares, and predicted against labelled share by case.

    Args:
        balances: at least one.
        path: file to write, replaced in one step.
    """
    figure = Figure(figsize=(10.0, 3.4 * len(balances)), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for balance, (left, right) in zip(balances, figure.subplots(len(balances), 2, squeeze=False), strict=True):
        edges = 100 * share_edges(balance.cases)
        shares = 100 * _shares(balance.cases)
        left.hist(list(shares), bins=list(edges), color=[_LABELLED, _PREDICTED], label=["labelled", "predicted"])
        left.set(xlabel="foreground, % of the voxels", ylabel="cases", title=str(balance.folder))
        left.title.set_parse_math(False)
        left.legend(frameon=False)
        end = float(edges[-1])
        right.plot([0, end], [0, end], color="#6e6e6e", linewidth=1, label="balanced")
        right.plot(shares[0], shares[1], "o", color=_PREDICTED, markersize=4, alpha=0.7)
        names = ", ".join(finding.name for finding in balance.findings)
        right.set(
            xlabel="labelled, %", ylabel="predicted, %", title=f"median ratio {balance.median_ratio:.3g}  {names}"
        )
        right.legend(frameon=False)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    write_atomically(path, stream.getvalue())


def share_edges(cases: Sequence[CaseBalance]) -> NDArray[np.float64]:
    """Edges of bins of equal width from 0 to a little above the largest share."""
    largest = float(_shares(cases).max())
    # Round numbers read better, and a largest share of 0 still needs a width.
    step = next((step for step in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1) if step * _BINS >= largest), 0.1)
    # The last bin is closed, so that a share of 1 needs no bin of its own.
    bins = min(int(largest / step) + 1, round(1 / step))
    return np.arange(bins + 1, dtype=np.float64) * step


def _shares(cases: Sequence[CaseBalance]) -> NDArray[np.float64]:
    """(2, N): labelled and predicted."""
    return np.array([[case.labelled_share for case in cases], [case.predicted_share for case in cases]])


def _counts(cases: Sequence[CaseBalance], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.array([np.histogram(shares, bins=edges)[0] for shares in _shares(cases)])


def _length(count: int, longest: int) -> int:
    return 0 if not count else max(1, round(_BAR * count / longest))
