"""Where a prediction errs in its topology: every hole, bridge, break, missing and extra component with its voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray

from nnunet_topo.metrics.betti import (
    Connectivity,
    betti_numbers,
    check_mask,
    check_same_shape,
    foreground_connectivity,
)
from nnunet_topo.metrics.simple_points import homotopic_towards

Kind = Literal["missing", "extra", "break", "bridge", "hole", "filled", "cavity"]
KINDS: dict[Kind, str] = {
    "missing": "a component of the label that the prediction does not touch",
    "extra": "a predicted component that touches no label",
    "break": "missed voxels part what the label joins",
    "bridge": "added voxels join what the label keeps apart, or close a loop that is not there",
    "hole": "missed voxels open a hole through a sheet, or a wall around a cavity",
    "filled": "added voxels close a hole, loop or cavity of the label",
    "cavity": "an enclosed cavity that the label does not have",
}
MARGIN = 3  # voxels around a region within which its effect on the topology is judged


@dataclass(frozen=True)
class ErrorRegion:
    """One topological error.

    Attributes:
        kind: key of `KINDS`.
        added: True for voxels of the prediction alone, False for voxels of the ground truth alone.
        voxels: (N, D) int, where changing the prediction would mend it: the whole component for `missing` and
            `extra`, otherwise the thinnest part of the error (the middle of a bridge, a membrane across a hole).
        betti_change: what the error does to components, loops and cavities around it.
        components: how many components of the ground truth it touches.
    """

    kind: Kind
    added: bool
    voxels: NDArray[np.intp]
    betti_change: tuple[int, int, int]
    components: int

    @property
    def centre(self) -> tuple[int, ...]:
        """The voxel of the region that is nearest to its mean."""
        distances = np.linalg.norm(self.voxels - self.voxels.mean(axis=0), axis=1)
        return tuple(int(index) for index in self.voxels[np.argmin(distances)])


def error_regions(
    prediction: NDArray[np.bool_],
    ground_truth: NDArray[np.bool_],
    *,
    connectivity: int | None = None,
    ignore: NDArray[np.bool_] | None = None,
) -> list[ErrorRegion]:
    """Every place where the topology of a prediction differs, heaviest first.

    Components without any overlap are errors of their own. What remains of the ground truth is then deformed towards
    the prediction without changing its topology; the voxels that cannot be reached that way are the errors, and each
    connected group of them is judged by what it changes nearby. A boundary that is only displaced gives none.
    A hole, break or bridge is judged locally: a bridge between two windings of one sheet is one even though both
    belong to the same component.

    Args:
        prediction: (X, Y, Z) or (X, Y) bool.
        ground_truth: bool, same shape.
        connectivity: of the foreground; 26 or 6 in 3-D, 8 or 4 in 2-D, None for the larger.
        ignore: bool, same shape: background in both masks, as in `betti_errors`.

    Returns:
        Empty when the ground truth can be deformed into the prediction. Groups that change no Betti number nearby are
        left out. The Euler characteristics of the masks differ by exactly the sum of those of all `betti_change`.

    Raises:
        ShapeError: shapes differ or an array is not boolean.
        ConfigError: the connectivity does not exist in that number of dimensions.
    """
    check_mask("prediction", prediction)
    check_same_shape("ground_truth", ground_truth, prediction)
    neighbours: Connectivity = 6 if foreground_connectivity(prediction.ndim, connectivity) in (4, 6) else 26
    if ignore is not None:
        check_same_shape("ignore", ignore, prediction)
        prediction, ground_truth = prediction & ~ignore, ground_truth & ~ignore
    flat = prediction.ndim == 2
    if flat:
        prediction, ground_truth = prediction[None], ground_truth[None]
    missing, truth = _without_overlap(ground_truth, prediction, neighbours)
    extra, predicted = _without_overlap(prediction, ground_truth, neighbours)
    regions = [_whole(voxels, ground_truth, "missing", neighbours) for voxels in missing]
    regions += [_whole(voxels, prediction, "extra", neighbours) for voxels in extra]
    regions += _changes_of_topology(truth, predicted, neighbours)
    if flat:
        regions = [
            ErrorRegion(region.kind, region.added, region.voxels[:, 1:], region.betti_change, region.components)
            for region in regions
        ]
    return sorted(regions, key=lambda region: (-sum(map(abs, region.betti_change)), -len(region.voxels)))


def _without_overlap(
    mask: NDArray[np.bool_], other: NDArray[np.bool_], connectivity: Connectivity
) -> tuple[list[NDArray[np.intp]], NDArray[np.bool_]]:
    """Voxels of each component that the other mask does not touch, and the mask without them."""
    labels, count = cc3d.connected_components(_bytes(mask), connectivity=connectivity, return_N=True)
    alone = np.ones(count + 1, dtype=np.bool_)
    alone[labels[other]] = False
    alone[0] = False
    lonely = alone[labels]
    return _groups(np.where(lonely, labels, 0)), mask & ~lonely


def _bytes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A copy as integers: cc3d 4.1.1 refuses some arrays of bool that have a single row, and all read-only ones."""
    return mask.astype(np.uint8, order="C")


def _groups(labels: NDArray[np.integer]) -> list[NDArray[np.intp]]:
    """Coordinates (N, 3) of each label other than 0."""
    voxels = np.argwhere(labels)
    values = labels[tuple(voxels.T)]
    order = np.argsort(values, kind="stable")
    borders = np.flatnonzero(np.diff(values[order])) + 1
    return [group for group in np.split(voxels[order], borders) if len(group)]


def _whole(voxels: NDArray[np.intp], mask: NDArray[np.bool_], kind: Kind, connectivity: Connectivity) -> ErrorRegion:
    low = voxels.min(axis=0)
    alone = np.zeros(voxels.max(axis=0) - low + 1, dtype=np.bool_)
    alone[tuple((voxels - low).T)] = True
    components, loops, cavities = betti_numbers(alone, connectivity=connectivity)
    sign = 1 if kind == "extra" else -1
    return ErrorRegion(
        kind, kind == "extra", voxels, (sign * components, sign * loops, sign * cavities), int(kind == "missing")
    )


def _changes_of_topology(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], connectivity: Connectivity
) -> list[ErrorRegion]:
    """The regions that remain between the prediction and the ground truth deformed towards it."""
    state = homotopic_towards(truth, predicted, connectivity=connectivity)
    components = cc3d.connected_components(_bytes(state), connectivity=connectivity)
    regions = []
    for added in (False, True):
        groups = _groups(cc3d.connected_components(_bytes(predicted & ~state if added else state & ~predicted)))
        for voxels in sorted(groups, key=len, reverse=True):
            low = np.maximum(voxels.min(axis=0) - MARGIN, 0)
            crop = tuple(slice(start, end) for start, end in zip(low, voxels.max(axis=0) + MARGIN + 1, strict=True))
            here = tuple((voxels - low).T)
            before = betti_numbers(state[crop], connectivity=connectivity)
            # One after another on the same mask: so the changes add up to the whole difference.
            state[crop][here] = added
            after = betti_numbers(state[crop], connectivity=connectivity)
            change = (after[0] - before[0], after[1] - before[1], after[2] - before[2])
            kind = _kind(added, change)
            if kind is not None:
                touched = _touched(components[crop], here)
                regions.append(ErrorRegion(kind, added, voxels, change, touched))
    return regions


def _kind(added: bool, change: tuple[int, int, int]) -> Kind | None:
    components, loops, cavities = change
    if added:
        if components < 0 or loops > 0:
            return "bridge"
        return "cavity" if cavities > 0 else "filled" if loops or cavities else "extra" if components else None
    if components > 0 or loops < 0:
        return "break"
    return "hole" if loops > 0 or cavities < 0 else "cavity" if cavities else "missing" if components else None


def _touched(components: NDArray[np.integer], here: tuple[NDArray[np.intp], ...]) -> int:
    """Number of components in or next to the voxels."""
    near = np.zeros(np.add(components.shape, 2), dtype=np.bool_)
    for offset in np.ndindex(3, 3, 3):
        near[tuple(index + step for index, step in zip(here, offset, strict=True))] = True
    found = np.unique(components[near[1:-1, 1:-1, 1:-1]])
    return int(np.count_nonzero(found))
