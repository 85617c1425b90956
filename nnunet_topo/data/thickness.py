"""How thick the structures of a dataset are, against what a configuration can show of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, maximum_filter

from nnunet_topo.data.check_finding import Finding

_BLOCK = 64  # voxels an axis; larger cases are judged by a block around the structure's voxel nearest its middle
_SAMPLE = 100_000  # voxels that the middle is found from
_FEWEST_VOXELS = 1.5
_FEWEST_THICKNESSES = 4.0


def typical_thickness(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> float | None:
    """Median thickness of a structure along its middle, in mm.

    Args:
        mask: (X, Y[, Z]) bool.
        spacing_mm: one value > 0 per axis.

    Returns:
        Twice the distance from the middle to the background, so that a sheet of n voxels is n voxels thick and a thin
        tube up to a voxel less than its diameter; None for an empty mask, and without background near its middle.
    """
    if not mask.any():
        return None
    voxels = np.flatnonzero(mask)
    voxels = voxels[:: len(voxels) // _SAMPLE + 1]  # coordinates of all of them would take more memory than the case
    positions = np.stack(np.unravel_index(voxels, mask.shape), axis=1)
    middle = positions[np.abs(positions - np.median(positions, axis=0)).sum(1).argmin()]
    starts = [max(0, min(place - _BLOCK // 2, size - _BLOCK)) for place, size in zip(middle, mask.shape, strict=True)]
    block = mask[tuple(slice(start, start + _BLOCK) for start in starts)]
    if block.all():
        return None
    # The border of the block is no border of the structure. In half voxels every width is even: distances between
    # the centres of whole ones are the same for widths of one and two.
    halves = np.pad(block, 1, mode="edge")
    for axis in range(block.ndim):
        halves = np.repeat(halves, 2, axis)
    distance = distance_transform_edt(halves, sampling=[edge / 2 for edge in spacing_mm])
    ridge = (distance == maximum_filter(distance, size=5)) & halves
    return 2 * float(np.median(distance[ridge]))


def thickness_findings(
    configurations: Mapping[str, Mapping[str, Any]],
    file: str,
    thickness_mm: Mapping[int, Sequence[float]],
    names: Mapping[int, str],
) -> Iterator[Finding]:
    """Configurations that show a structure too coarsely, or too little of it.

    Args:
        configurations: of nnU-Net's plans, by name, with `spacing` and `patch_size` where they are not inherited.
        file: the plans' path.
        thickness_mm: of each label value, one number a case.
        names: of the label values.

    Returns:
        Warnings: structures under 1.5 voxels at the finest spacing of the configuration break up when they are
        resampled; a patch under 4 times their thickness shows a blob, not a sheet or a vessel.
    """
    for name, settings in configurations.items():
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
