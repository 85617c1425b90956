"""Betti matching loss: which components, loops and cavities of the prediction are those of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_topo.functional.betti_engine import betti_engine
from nnunet_topo.functional.gather import pool_samples

_PADDING = 2
_ANCHOR = 2.0
"""Value of a voxel in the padding, larger than any probability: see `_framed`."""


def betti_matching_loss(
    probabilities: Tensor,
    onehot: Tensor,
    *,
    size: int = 24,
    patches: int = 1,
    seed: int = 0,
    power: float = 4.0,
    budget_ms: float | None = None,
    batch_dice: bool = False,
) -> Tensor:
    """Share of wrong topological features, each weighted by its persistence, in small patches.

    A component, loop or cavity of the prediction is born at one probability and dies at a lower one. Those that the
    matching pairs with a feature of the labels should be born at 1 and die at 0 as theirs do; those without a partner
    should not exist; features of the labels without a partner cost 1. The gradient reaches the voxels of birth and
    death alone: few voxels, but the ones on which the topology depends. Never alone, and late: early in a training
    there are thousands of features. Foreground has 6 neighbours (2-D: 4).

    It runs on the CPU, with time that grows faster than the number of voxels, so only in cubes of `size` voxels. Where
    they lie depends on `seed` and the shape alone, so that equal inputs give equal values; a data loader crops at
    random anyway. The engine orders edges of equal value by their place, so flips and permutations of the axes can
    change which features are matched. Patches are worked on side by side, in as many threads as there are.

    Args:
        probabilities: (B, K, X, Y[, Z]) in [0, 1], 0 in ignored voxels.
        onehot: (B, K, X, Y[, Z]) bool, False in ignored voxels.
        size: edge of a patch in voxels, >= 2; smaller axes are taken whole.
        patches: number of patches in each sample, >= 1; one when a patch holds everything.
        seed: of their positions.
        power: >= 1, exponent of the persistence of false features. A background of noise has thousands, each of small
            persistence, in a perfect mask; 2 is the paper's, and counts them.
        budget_ms: > 0, milliseconds: after the first patch of each sample another is begun only while it should end
            within them, at the pace so far. How many that are depends on the machine and its load, and so does the
            value: a run with a budget cannot be repeated exactly. None: all patches.
        batch_dice: one ratio over batch and ranks instead of one a sample.

    Returns:
        () float in [0, 1], 0 is perfect. Neither labels nor prediction: 0 with zero gradient. Where the labels have no
        feature the prediction's count as if the labels had one: F / (1 + F).

    Raises:
        ConfigError: the engine is not installed.

    Source:
        Stucki et al., Topologically faithful image segmentation via induced matching of persistence barcodes, ICML
        2023, eq. 6; Stucki et al., Efficient Betti matching, 2024. Differs from it in: the oldest component counts like
        any other; divided by the features there are (of the labels at least 1); `power`; a missed feature costs as much
        as a false one.
    """
    boxes = _boxes(probabilities.shape[2:], len(probabilities), size, patches, seed)
    # Before the clock starts: a GPU is done with the network's forward pass only then.
    crops = _crops(probabilities, onehot, boxes)
    # The sum of nothing ties the result to the input also where there is no feature.
    sums = crops.new_zeros(3, *probabilities.shape[:2]) + crops[:0].sum()
    start = perf_counter()
    for number, chosen in enumerate(crops.split(len(crops) if budget_ms is None else 1), 1):
        sums = sums + _wrong_expected_false(chosen, power)
        if budget_ms is not None and (perf_counter() - start) * (number + 1) / number > budget_ms / 1000:
            break
    wrong, expected, false = pool_samples(sums.to(probabilities.device), batch_dice)
    # Without the 1, false features where the labels have none would be all there is: a constant share, no gradient.
    return (wrong / (expected.clamp_min(1.0) + false)).mean()


def _boxes(shape: Sequence[int], samples: int, size: int, patches: int, seed: int) -> list[list[tuple[slice, ...]]]:
    """Where the patches of each sample lie."""
    generator = np.random.default_rng(seed)
    edges = [min(size, length) for length in shape]
    room = [length - edge + 1 for length, edge in zip(shape, edges, strict=True)]
    number = patches if max(room) > 1 else 1
    starts = generator.integers(0, room, size=(samples, number, len(shape)))
    return [
        [tuple(slice(a, a + edge) for a, edge in zip(start, edges, strict=True)) for start in of_sample]
        for of_sample in starts.tolist()
    ]


def _crops(probabilities: Tensor, onehot: Tensor, boxes: Sequence[Sequence[tuple[slice, ...]]]) -> Tensor:
    """(P, B, K, 2, ...) prediction and labels in the P boxes of each sample, on the CPU by a single transfer."""
    structures = range(probabilities.shape[1])
    pairs = [
        torch.stack([probabilities[b, k][box], onehot[b, k][box].to(probabilities.dtype)])
        for of_samples in zip(*boxes, strict=True)
        for b, box in enumerate(of_samples)
        for k in structures
    ]
    return torch.stack(pairs).cpu().unflatten(0, (-1, *probabilities.shape[:2]))


def _wrong_expected_false(crops: Tensor, power: float) -> Tensor:
    """(3, B, K) what `_weights` gives, summed over the boxes of each sample; `crops` from `_crops`."""
    framed = [
        (b, k, _framed(crops[patch, b, k, 0]), _framed(crops[patch, b, k, 1]))
        for patch, b, k in np.ndindex(*crops.shape[:3])
    ]
    # Sublevel sets of 1 - p are superlevel sets of p.
    arrays = [[_inverted(pair[side]) for pair in framed] for side in (2, 3)]
    sums = crops.new_zeros(3, *crops.shape[1:3])
    for (b, k, predicted, labelled), matching in zip(framed, betti_engine().compute_matching(*arrays), strict=True):
        at = torch.zeros_like(sums)
        at[:, b, k] = 1.0
        sums = sums + at * torch.stack(_weights(predicted, labelled, matching, power))[:, None, None]
    return sums


def _framed(patch: Tensor) -> Tensor:
    """The patch in background, with one voxel in a corner that is surer than any.

    The oldest component never dies, and persistence pairs it with the oldest of the labels wherever that is. This voxel
    is the oldest one in both, so that all real components are born, die and are matched by their places.
    """
    framed = torch.nn.functional.pad(patch, (_PADDING, _PADDING) * patch.ndim)
    corner = torch.zeros_like(framed, dtype=torch.bool)
    corner[(0,) * patch.ndim] = True
    return torch.where(corner, _ANCHOR, framed)


def _inverted(framed: Tensor) -> NDArray[np.float64]:
    return np.ascontiguousarray(1.0 - framed.detach().numpy().astype(np.float64) / _ANCHOR)


def _weights(predicted: Tensor, labelled: Tensor, matching: Any, power: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weight of the wrong features, that of the labels' features, and that of what the prediction has besides."""
    bars = {
        (side, kind): torch.stack(
            [
                torch.cat(
                    [_values_at(image, where) for where in getattr(matching, f"input{side}_{kind}_{end}_coordinates")]
                )
                for end in ("birth", "death")
            ]
        )
        for side, image in ((1, predicted), (2, labelled))
        for kind in ("matched", "unmatched")
    }
    apart = bars[1, "matched"] - bars[2, "matched"]
    birth, death = bars[1, "unmatched"]
    false = (birth - death).pow(power).sum()
    expected, missed = ((birth - death).sum() for birth, death in (bars[2, "matched"], bars[2, "unmatched"]))
    # Births are not below deaths, so a matched feature costs at most 1 too.
    return apart.square().sum() + false + missed, expected + missed, false


def _values_at(image: Tensor, where: NDArray[np.int64]) -> Tensor:
    """Values at (N, axes) positions; the engine gives arrays of no position with strides that torch refuses."""
    if not len(where):
        return image.new_zeros(0)
    return image[tuple(torch.from_numpy(np.ascontiguousarray(where)).T)]
