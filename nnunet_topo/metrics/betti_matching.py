"""Betti matching of binary masks: which components, loops and cavities of two masks stand for each other."""

from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray

from nnunet_topo.metrics.betti import check_mask, check_same_shape
from nnunet_topo.metrics.loop_matching import matched_loops
from nnunet_topo.metrics.run_complex import Indices, RunComplex

Counts = dict[int, tuple[int, int, int]]
"""{dimension: (matched, predicted, ground truth)}; dimension 0 components, 1 loops, 2 cavities."""


def betti_matching_counts(prediction: NDArray[np.bool_], ground_truth: NDArray[np.bool_]) -> Counts:
    """Features of both masks and how many of them match, as the scorer of the Vesuvius competition counts them.

    Unlike a difference of Betti numbers it is spatial: a feature matches only one that is the same feature of the
    union of both masks. The foreground has 6 neighbours (2-D: 4). As in all persistent homology of sublevel sets, one
    component is the essential class that never dies, and is not counted: a mask with one component has no feature
    here, and so has an empty one. `betti_matching_error` counts it.

    Args:
        prediction: (X, Y, Z) or (X, Y) bool.
        ground_truth: bool, same shape.

    Returns:
        For dimension 0, 1 and 2 (matched, predicted, ground truth). In 2-D, dimension 1 are the holes and
        dimension 2 is (0, 0, 0).

    Raises:
        ShapeError: shapes differ, or an array is not a 2-D or 3-D boolean array.
        DataError: the masks are large and differ by noise, in about 100 000 loops or more.

    Source:
        Stucki et al., Efficient Betti matching enables topology-aware 3D segmentation via persistent homology, 2024.
        Equal, where several matchings are possible too, to its implementation Betti-Matching-3D given the background
        as 1 and the foreground as 0.
    """
    return _Matching(prediction, ground_truth).counts()


def betti_matching_error(prediction: NDArray[np.bool_], ground_truth: NDArray[np.bool_]) -> int:
    """Number of components, loops and cavities of either mask that have no partner in the other one.

    Components are counted all, the essential one too, so a missed object costs 1 whether or not there are others. They
    match if they belong to one component of the union; of several that do, one of each mask is matched. (The counts of
    `betti_matching_counts` always take the masks' first components for each other, wherever they are.)

    Args:
        prediction: (X, Y, Z) or (X, Y) bool.
        ground_truth: bool, same shape.

    Returns:
        At least 0; 0 for equal masks. One mask empty: the sum of the Betti numbers of the other. It is a number of
        features, so it grows with the volume.

    Raises:
        ShapeError: shapes differ, or an array is not a 2-D or 3-D boolean array.
        DataError: the masks are large and differ by noise, in about 100 000 loops or more.

    Source:
        As `betti_matching_counts`; there the essential class is left out.
    """
    matching = _Matching(prediction, ground_truth)
    counts = matching.counts()
    components = matching.predicted.components + matching.expected.components - 2 * matching.shared_components
    return components + sum(
        predicted + expected - 2 * matched for matched, predicted, expected in (counts[1], counts[2])
    )


class _Mask:
    """A mask with its Betti numbers."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.complex = RunComplex(mask)
        self.background = _Background(mask)
        self.components = int(self.complex.components.max(initial=-1)) + 1
        self.cavities = int(np.count_nonzero(self.background.is_cavity))
        self.loops = self.components + self.cavities - self.complex.euler_characteristic

    def features(self) -> tuple[int, int, int]:
        return max(self.components - 1, 0), self.loops, self.cavities


class _Background:
    """Components of the background with 26 neighbours; those that no path leads out of are cavities.

    Padded by one voxel, so that all that reaches the border is one component, the outside.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        labels, count = cc3d.connected_components(~np.pad(mask, 1), connectivity=26, binary_image=True, return_N=True)
        self.labels: NDArray[np.unsignedinteger] = labels.ravel()
        self.is_cavity = np.ones(count + 1, bool)
        self.is_cavity[[0, self.labels[0]]] = False


class _Matching:
    """Two masks and their union, in 3-D."""

    def __init__(self, prediction: NDArray[np.bool_], ground_truth: NDArray[np.bool_]) -> None:
        check_mask("prediction", prediction)
        check_same_shape("ground_truth", ground_truth, prediction)
        volume = (1,) * (3 - prediction.ndim) + prediction.shape
        prediction = np.ascontiguousarray(prediction.reshape(volume))
        ground_truth = np.ascontiguousarray(ground_truth.reshape(volume))
        self.predicted, self.expected = _Mask(prediction), _Mask(ground_truth)
        self.union = _Mask(prediction | ground_truth)
        self._holds = np.zeros((2, self.union.components), bool)
        for holds, mask in zip(self._holds, (self.predicted, self.expected), strict=True):
            holds[self.union.complex.components[self.union.complex.point_of(mask.complex.points)]] = True
        self.shared_components = int(np.count_nonzero(self._holds.all(axis=0)))

    def counts(self) -> Counts:
        predicted, expected = self.predicted.features(), self.expected.features()
        matches = (self._matched_components, self._matched_loops, self._matched_cavities)
        return {
            dimension: (match() if p and g else 0, p, g)
            for dimension, (match, p, g) in enumerate(zip(matches, predicted, expected, strict=True))
        }

    def _matched_components(self) -> int:
        """One less than the components of the union that hold both masks, unless the first one is made of two.

        After the union's own edges, the others follow in order of their coordinates. Every edge leads on from what
        already hangs together with the first voxel, so the components of the union join this one piece one by one,
        and the second mask's first component to join it meets the first mask's there. If it was a component of the
        union that holds both, it is the essential class; if it was two, one with the prediction and one with the
        ground truth alone, these were the essential classes, and each component that holds both is a match.
        """
        shared = self._holds.all(axis=0)
        alone = self._holds & ~shared
        if not shared.any():
            return 0
        joined = np.full(self.union.components, np.iinfo(np.int64).max)
        np.minimum.at(joined, self.union.complex.components, self.union.complex.point_order())
        both_alone = max(joined[mask].min(initial=np.iinfo(np.int64).max) for mask in alone)
        return self.shared_components - int(both_alone > joined[shared].min())

    def _matched_loops(self) -> int:
        return matched_loops(self.union.complex, self.union.loops, self.predicted.complex, self.expected.complex)

    def _matched_cavities(self) -> int:
        """Cavities of the union that hold the last voxel of those inside the same cavity, in either mask.

        By duality cavities are components of the background, joined from the last voxel backwards by the outside.
        """
        labels, is_cavity = self.union.background.labels, self.union.background.is_cavity
        inside: Indices = np.flatnonzero(is_cavity[labels])
        last = np.full(is_cavity.size, -1)
        np.maximum.at(last, labels[inside], inside)
        last = last[is_cavity]
        matched = np.ones(last.size, bool)
        for mask in (self.predicted, self.expected):
            holders = mask.background.labels[last]
            last_held = np.full(mask.background.is_cavity.size, -1)
            np.maximum.at(last_held, holders, last)
            matched &= mask.background.is_cavity[holders] & (last_held[holders] == last)
        return int(np.count_nonzero(matched))
