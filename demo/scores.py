"""Dice and Betti numbers of predicted cases, and their table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import tifffile

from nnunet_topo.metrics.betti import betti_numbers

CONNECTIVITY = 26


@dataclass(frozen=True)
class Score:
    """One predicted case against its complete label.

    Attributes:
        dice: 0 to 1.
        betti: of the prediction: components, tunnels, cavities (26 neighbours).
        betti_label: of the label.
    """

    dice: float
    betti: tuple[int, int, int]
    betti_label: tuple[int, int, int]

    @property
    def betti_errors(self) -> tuple[int, ...]:
        """Absolute differences of the three numbers."""
        return tuple(abs(ours - theirs) for ours, theirs in zip(self.betti, self.betti_label, strict=True))


Scores = dict[str, dict[str, Score]]  # case -> trainer -> score


def score_case(label: Path, prediction: Path) -> Score:
    """Score of one prediction.

    Args:
        label: tif, 1 is foreground, no ignored voxels.
        prediction: tif of the same shape.
    """
    truth, predicted = tifffile.imread(label) == 1, tifffile.imread(prediction) == 1
    both, either = np.count_nonzero(truth & predicted), np.count_nonzero(truth) + np.count_nonzero(predicted)
    return Score(
        dice=2 * both / either if either else 1.0,
        betti=betti_numbers(predicted, connectivity=CONNECTIVITY),
        betti_label=betti_numbers(truth, connectivity=CONNECTIVITY),
    )


def rows(scores: Scores) -> list[tuple[str, ...]]:
    """The table as text: a line per case and trainer, then the mean of each trainer."""
    table = [
        (case, trainer, f"{score.dice:.3f}", *(f"{error}" for error in score.betti_errors), _numbers(score.betti_label))
        for case, by_trainer in scores.items()
        for trainer, score in by_trainer.items()
    ]
    for trainer in next(iter(scores.values())):
        column: list[Score] = [by_trainer[trainer] for by_trainer in scores.values()]
        errors = (f"{mean(score.betti_errors[index] for score in column):.1f}" for index in range(3))
        table.append(("mean", trainer, f"{mean(score.dice for score in column):.3f}", *errors, ""))
    return table


HEADINGS = ("case", "trainer", "Dice", "b0 error", "b1 error", "b2 error", "label b0 b1 b2")


def verdict(cases: int, steps: int) -> str:
    """What the table does and does not say."""
    return (
        f"{steps} steps, a tiny network, {cases} held-out cases, one run: this shows that the whole path runs and "
        "what it measures, not which trainer is better."
    )


def print_scores(scores: Scores, *, steps: int) -> None:
    """Print the table with what it means."""
    table = [HEADINGS, *rows(scores)]
    widths = [max(len(row[index]) for row in table) for index in range(len(HEADINGS))]
    for row in table:
        left, right = row[:2], row[2:]
        cells = [cell.ljust(width) for cell, width in zip(left, widths[:2], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(right, widths[2:], strict=True)]
        print("      " + "  ".join(cells))
    print("      b0 components, b1 tunnels, b2 cavities (26 neighbours); the error is |predicted - label|, 0 is best.")
    print(f"      {verdict(len(scores), steps)}", flush=True)


def _numbers(betti: tuple[int, int, int]) -> str:
    return " ".join(str(number) for number in betti)
