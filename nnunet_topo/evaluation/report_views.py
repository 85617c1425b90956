"""Which errors of a case are shown, and from where each is best seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_topo.metrics.betti import betti_numbers
from nnunet_topo.metrics.error_regions import ErrorRegion

Box = tuple[slice, slice, slice]
NEIGHBOURS = np.ones((3, 3, 3), dtype=np.bool_)
# Voxels by which the thinnest part of an error is widened within what is wrong, to be seen: a bridge less, or it would
# spread along the sheets that it joins.
SPREAD_ADDED, SPREAD_MISSED = 2, 3
SPECK = 2  # voxels
VISIBLE = 6  # pixels of a labelled area beside an error
CANDIDATES = 8  # errors of a kind that are looked at for the close-ups
SLICES_TRIED = 5  # along each axis
MIN_HALF, MAX_HALF = 11, 26  # of a close-up, in voxels of the axis of middle spacing
# What is shown first when a case has more errors than there is room for.
ORDER = ("bridge", "hole", "break", "missing", "extra", "filled", "cavity")


@dataclass(frozen=True)
class CaseVolumes:
    """One case with one label of it, as the pictures need it.

    Attributes:
        case: name.
        label: name of the class or region.
        truth: (Z, Y, X) bool; a 2-D case has Z = 1.
        prediction: bool, same shape.
        ignore: bool, same shape.
        image: (Z, Y, X) of the first channel, None when it was not found.
        spacing_mm: of each axis.
        regions: its errors.
    """

    case: str
    label: str
    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]
    ignore: NDArray[np.bool_]
    image: NDArray[np.generic] | None
    spacing_mm: tuple[float, float, float]
    regions: Sequence[ErrorRegion] = field(default_factory=tuple)

    @property
    def missed(self) -> NDArray[np.bool_]:
        """Labelled, not predicted, not ignored."""
        return self.truth & ~self.prediction & ~self.ignore

    @property
    def added(self) -> NDArray[np.bool_]:
        """Predicted, not labelled, not ignored."""
        return self.prediction & ~self.truth & ~self.ignore

    @property
    def is_flat(self) -> bool:
        """Whether there is too little depth for a rendering."""
        return min(self.truth.shape) < 4

    def cut(self, box: Box) -> CaseVolumes:
        """The same without what is outside a box, and without regions."""
        image = None if self.image is None else self.image[box]
        return CaseVolumes(
            self.case, self.label, self.truth[box], self.prediction[box], self.ignore[box], image, self.spacing_mm
        )


@dataclass(frozen=True)
class View:
    """A close-up of one error.

    Attributes:
        region: the error.
        box: the part of the volume that is shown.
        axis: across which the slice lies.
        index: of the slice in the whole volume.
        highlight: bool, of the box: the voxels to point at.
        plainness: 0 to 3, how much the slice looks like such an error.
    """

    region: ErrorRegion
    box: Box
    axis: int
    index: int
    highlight: NDArray[np.bool_]
    plainness: int


def chosen_views(volumes: CaseVolumes, count: int) -> list[View]:
    """At most `count` errors, one of each kind before a second of any, first those that are plain to see.

    The largest errors of a bad prediction are tangles of hundreds that nobody recognises; the overview shows them.
    """
    by_kind = {}
    for kind in ORDER:
        regions = [region for region in volumes.regions if region.kind == kind]
        regions.sort(key=lambda region: (sum(map(abs, region.betti_change)) > 1, -len(region.voxels)))
        by_kind[kind] = sorted(
            (view_of(volumes, region) for region in regions[:CANDIDATES]), key=lambda view: -view.plainness
        )
    chosen: list[View] = []
    # Single voxels only where there is nothing larger: they are seen badly and matter little.
    for specks in (False, True):
        queues = [[v for v in views if (len(v.region.voxels) <= SPECK) == specks] for views in by_kind.values()]
        while len(chosen) < count and any(queues):
            chosen += [queue.pop(0) for queue in queues if queue]
    return chosen[:count]


def view_of(volumes: CaseVolumes, region: ErrorRegion) -> View:
    """The close-up in whose slice the error is seen best.

    That is one where it also is an error of the slice's own topology: a bridge seen across its length joins two
    areas, seen along it it is a spot.
    """
    box = _box(volumes, region)
    cut = volumes.cut(box)
    low = [side.start for side in box]
    here = region.voxels - low
    here = here[((here >= 0) & (here < cut.truth.shape)).all(axis=1)]
    core = np.zeros(cut.truth.shape, dtype=np.bool_)
    core[tuple(here.T)] = True
    wrong, spread = (cut.added, SPREAD_ADDED) if region.added else (cut.missed, SPREAD_MISSED)
    highlight = np.asarray(ndimage.binary_dilation(core, NEIGHBOURS, iterations=spread, mask=wrong) | core)
    plainness, axis, index = _slice(cut, core, highlight, region)
    fits = len(here) == len(region.voxels)
    return View(region, box, axis, index + low[axis], highlight, plainness if fits else 0)


def _box(volumes: CaseVolumes, region: ErrorRegion) -> Box:
    """As wide in mm along every axis, around the error, within the volume."""
    spacing = np.array(volumes.spacing_mm)
    extent_mm = (np.ptp(region.voxels, axis=0) + 1) * spacing
    fine = float(np.median(spacing[np.array(volumes.truth.shape) > 1]))
    half_mm = np.clip(0.9 * extent_mm.max(), MIN_HALF * fine, MAX_HALF * fine)
    sides = []
    for size, step, centre in zip(volumes.truth.shape, volumes.spacing_mm, region.centre, strict=True):
        width = min(size, 2 * max(2, round(half_mm / step)) + 1)
        start = min(max(centre - width // 2, 0), size - width)
        sides.append(slice(start, start + width))
    return sides[0], sides[1], sides[2]


def _slice(
    cut: CaseVolumes, core: NDArray[np.bool_], highlight: NDArray[np.bool_], region: ErrorRegion
) -> tuple[int, int, int]:
    """Plainness, axis and index in the box; the slice that cuts most of the core among equals."""
    mask = cut.prediction & ~cut.ignore
    best, chosen = (-1, 0.0, 0.0), (0, 0, 0)
    for axis in range(3):
        if min(np.delete(cut.truth.shape, axis)) == 1:
            continue
        inside = np.flatnonzero(core.any(axis=tuple(np.delete(range(3), axis))))
        for index in np.unique(inside[np.linspace(0, len(inside) - 1, SLICES_TRIED).round().astype(int)]):
            mask_plane, truth, marked = (_plane(volume, axis, index) for volume in (mask, cut.truth, highlight))
            plainness = _plainness(mask_plane, truth, marked, region)
            pixel_mm2 = float(np.prod(np.delete(cut.spacing_mm, axis)))
            areas = [np.count_nonzero(_plane(volume, axis, index)) * pixel_mm2 for volume in (core, highlight)]
            score = (plainness, areas[0], areas[1])
            if score > best:
                best, chosen = score, (plainness, axis, int(index))
    return chosen


def _plane(mask: NDArray[np.bool_], axis: int, index: int) -> NDArray[np.bool_]:
    return np.ascontiguousarray(np.take(mask, index, axis))


def _plainness(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_], highlight: NDArray[np.bool_], region: ErrorRegion
) -> int:
    """How much an error looks like its kind in a slice, 0 to 3.

    A bridge must join, and a gap part, two areas of the slice; 3 if both are labelled to a visible extent.
    """
    mended = mask & ~highlight if region.added else mask | highlight
    seen, right = betti_numbers(mask), betti_numbers(mended)
    components, holes = seen[0] - right[0], seen[1] - right[1]
    if region.kind not in ("bridge", "break", "hole"):
        return int(components != 0 or holes != 0)
    if components == 0 or (components < 0) != region.added:
        return int(holes != 0)
    areas, count = ndimage.label(mask & ~highlight, NEIGHBOURS[0])
    beside = np.unique(areas[ndimage.binary_dilation(highlight, NEIGHBOURS[0])])
    labelled = np.bincount(areas[truth], minlength=count + 1)
    return 3 if sum(int(labelled[area]) >= VISIBLE for area in beside if area) > 1 else 2
