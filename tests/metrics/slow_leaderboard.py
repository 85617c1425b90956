"""The competition's score from its definition, slowly: persistent homology by reducing matrices, cell by cell.

Shares nothing with the package. Written from the papers: Betti matching takes the barcodes of two filtrations and of
their union's, and the two image barcodes; here each is a plain column reduction over all cells of the volume.

    python tests/metrics/slow_leaderboard.py

rewrites leaderboard_cases.json: scores of volumes that are too large to be scored this way in every run of the tests.
"""

from __future__ import annotations

import json
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import surface_distance
from scipy import ndimage
from skimage.metrics import variation_of_information

CASES = Path(__file__).with_name("leaderboard_cases.json")
# Axes that a cell of a type extends along, in the order of the types.
AXES = {0: ((),), 1: ((0,), (1,), (2,)), 2: ((1, 2), (0, 2), (0, 1)), 3: ((0, 1, 2),)}


def cells(shape, dimension):
    """(corner, axes) of all cells, ordered by corner, then type."""
    for corner in product(*map(range, shape)):
        for axes in AXES[dimension]:
            if all(corner[axis] + 1 < shape[axis] for axis in axes):
                yield corner, axes


def corners(cell):
    corner, axes = cell
    for steps in product((0, 1), repeat=len(axes)):
        moved = list(corner)
        for axis, step in zip(axes, steps, strict=True):
            moved[axis] += step
        yield tuple(moved)


def faces(cell):
    corner, axes = cell
    for axis in axes:
        rest = tuple(other for other in axes if other != axis)
        moved = list(corner)
        moved[axis] += 1
        yield corner, rest
        yield tuple(moved), rest


def sorted_cells(mask, dimension):
    """Cells whose voxels are all foreground, then the others; `births` says which."""
    found = list(cells(mask.shape, dimension))
    births = {cell: 0 if all(mask[corner] for corner in corners(cell)) else 1 for cell in found}
    return sorted(found, key=births.get), births  # sorting is stable


def deaths(columns, rows):
    """{column: row of its lowest entry} after reducing the boundary matrix with rows and columns in these orders."""
    position = {cell: index for index, cell in enumerate(rows)}
    reduced, lows = {}, {}
    for column in columns:
        value = 0
        for face in faces(column):
            value ^= 1 << position[face]
        while value and value.bit_length() in reduced:
            value ^= reduced[value.bit_length()]
        if value:
            reduced[value.bit_length()] = value
            lows[column] = rows[value.bit_length() - 1]
    return lows


def matching(prediction, ground_truth):
    """{dimension: (matched, predicted, ground truth)}."""
    union = prediction | ground_truth
    counts = {}
    for dimension in range(3):
        columns, deaths_of_union = sorted_cells(union, dimension + 1)
        rows, births_of_union = sorted_cells(union, dimension)
        pairs = {
            column for column, row in deaths(columns, rows).items() if births_of_union[row] < deaths_of_union[column]
        }
        numbers, images = [], []
        for mask in (prediction, ground_truth):
            rows, births = sorted_cells(mask, dimension)
            own_columns, own_deaths = sorted_cells(mask, dimension + 1)
            own = {row for column, row in deaths(own_columns, rows).items() if births[row] < own_deaths[column]}
            numbers.append(len(own))
            images.append({column for column, row in deaths(columns, rows).items() if row in own})
        counts[dimension] = (len(pairs & images[0] & images[1]), *numbers)
    return counts


def score(prediction, ground_truth, tolerance=2.0, alpha=0.3, spacing=(1.0, 1.0, 1.0)):
    """Score and parts of two bool volumes."""
    totals = {dimension: [0, 0, 0] for dimension in range(3)}
    halves = [np.array_split(np.arange(size), min(2, size)) for size in prediction.shape]
    for octant in product(*halves):
        for dimension, numbers in matching(prediction[np.ix_(*octant)], ground_truth[np.ix_(*octant)]).items():
            totals[dimension] = [total + number for total, number in zip(totals[dimension], numbers, strict=True)]
    topo = weight = 0.0
    for dimension, (matched, predicted, expected) in totals.items():
        if predicted + expected:
            share = 2 * matched / (predicted + expected) if expected else 0.5 / (predicted + 0.5)
            topo += (0.34, 0.33, 0.33)[dimension] * share
            weight += (0.34, 0.33, 0.33)[dimension]
    topo = topo / weight if weight else 1.0
    if prediction.any() and ground_truth.any():
        distances = surface_distance.compute_surface_distances(ground_truth, prediction, spacing)
        surface = surface_distance.compute_surface_dice_at_tolerance(distances, tolerance)
    else:
        surface = float(not prediction.any() and not ground_truth.any())
    union = prediction | ground_truth
    labels = [ndimage.label(mask, np.ones((3, 3, 3)))[0][union] for mask in (ground_truth, prediction)]
    split, merge = variation_of_information(*labels) if union.any() else (0.0, 0.0)
    voi = 1 / (1 + alpha * (split + merge))
    return {
        "score": float(0.3 * topo + 0.35 * surface + 0.35 * voi),
        "topo_score": float(topo),
        "surface_dice": float(surface),
        "voi_score": float(voi),
        "voi_split": float(split),
        "voi_merge": float(merge),
        "counts": {str(dimension): numbers for dimension, numbers in totals.items()},
    }


def make_case(shape, seed):
    """Two wavy sheets and a tube with holes, bridges, cavities and specks, and a prediction of them with other ones."""
    generator = np.random.default_rng(seed)
    x, y, z = (
        np.arange(size).reshape([-1 if axis == other else 1 for other in range(3)]) for axis, size in enumerate(shape)
    )
    truth = np.zeros(shape, bool)
    for height in (0.3, 0.62):
        middle = shape[2] * height + 1.5 * np.sin(x / 4 + generator.uniform(0, 6)) + np.cos(y / 5)
        truth |= np.abs(z - middle) < generator.uniform(1.2, 2.6)
    truth |= np.hypot(x - shape[0] * 0.6, z - shape[2] * 0.85 - np.sin(y / 3)) < 1.6

    def damaged(mask, number):
        mask = mask.copy()
        for _ in range(number):
            start = [int(generator.integers(0, size - 3)) for size in shape]
            size = generator.integers(1, 6, 3)
            box = tuple(slice(low, low + int(length)) for low, length in zip(start, size, strict=True))
            mask[box] = generator.random() < 0.4
        return mask ^ (generator.random(shape) < 0.012)

    truth = damaged(truth, 10)
    return damaged(truth, 10), truth


def main() -> None:
    stored = []
    for seed, shape in enumerate([(16, 18, 20), (17, 13, 21), (22, 14, 9), (8, 25, 19), (20, 20, 20), (15, 23, 17)]):
        prediction, truth = make_case(shape, seed)
        checksums = [zlib.crc32(np.ascontiguousarray(mask).tobytes()) for mask in (prediction, truth)]
        stored.append({"shape": shape, "seed": seed, "crc32": checksums, **score(prediction, truth)})
    CASES.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
