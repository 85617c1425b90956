"""How thick the structures of a dataset are, against what a configuration can show of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, maximum_filter

from nnunet_topo.data.check_finding import Finding

_BLOCK = 96  # voxels an axis; larger cases are judged by a block around the middle of the structure
_FEWEST_VOXELS = 1.5
_FEWEST_THICKNESSES = 4.0


def typical_thickness(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> float | None:
    """Median thickness of a structure along its middle, in mm.

    Args:
        mask: (X, Y[, Z]) bool.
        spacing_mm: one value > 0 per axis.

    Returns:
        Twice the distance from the middle to the background, less half a voxel on either side, so that a sheet of one
        voxel is one voxel thick; None for an empty mask. Rounded ends make it a little less than the true one.
    """
    if not mask.any():
        return None
    middle = [int(np.median(positions)) for positions in np.nonzero(mask)]
    starts = [max(0, min(place - _BLOCK // 2, size - _BLOCK)) for place, size in zip(middle, mask.shape, strict=True)]
    block = mask[tuple(slice(start, start + _BLOCK) for start in starts)]
    if not block.any():
        block = mask
    # The border of the block is no border of the structure.
    distance = distance_transform_edt(np.pad(block, 1, mode="edge"), sampling=spacing_mm)
    ridge = (distance == maximum_filter(distance, size=3)) & (distance > 0)
    depth = float(np.median(distance[ridge]))
    if not np.isfinite(depth) or not (~block).any():
        return None
    return 2 * depth - min(spacing_mm)


def thickness_findings(
    plans: Mapping[str, Any], file: str, thickness_mm: Mapping[int, Sequence[float]], names: Mapping[int, str]
) -> Iterator[Finding]:
    """Configurations of the plans that show a structure too coarsely, or too little of it.

    Args:
        plans: nnU-Net's, with `spacing` and `patch_size` of each configuration.
        file: the plans' path.
        thickness_mm: of each label value, one number a case.
        names: of the label values.

    Returns:
        Warnings: structures under 1.5 voxels at the finest spacing of the configuration break up when they are
        resampled; a patch under 4 times their thickness shows a blob, not a sheet or a vessel.
    """
    for name, settings in plans.get("configurations", {}).items():
        spacing, patch = settings.get("spacing"), settings.get("patch_size")
        if not spacing or not patch:
            continue
        spacing = [float(value) for value in spacing][-len(patch) :]
        for value, measured in sorted(thickness_mm.items()):
            typical = float(np.median(measured))
            voxels = typical / min(spacing)
            label = f"'{names.get(value, value)}' ({value})"
            if voxels < _FEWEST_VOXELS:
                message = (
                    f"{name}: expected {label} to be at least {_FEWEST_VOXELS} voxels thick at spacing {spacing} mm, "
                    f"got {voxels:.1f} (median {typical:.3g} mm)."
                )
                mend = "Structures so thin break up in training and scoring: use a configuration with a finer spacing."
                yield Finding("warning", "thickness", file, message, mend)
            extent = min(size * edge for size, edge in zip(patch, spacing, strict=True))
            if extent < _FEWEST_THICKNESSES * typical:
                message = (
                    f"{name}: expected patches of at least {_FEWEST_THICKNESSES:g} times the thickness of {label} "
                    f"({typical:.3g} mm), got {extent:.3g} mm."
                )
                mend = "Use a larger patch (network.patch_size of the recipe) or a coarser configuration."
                yield Finding("warning", "thickness", file, message, mend)
