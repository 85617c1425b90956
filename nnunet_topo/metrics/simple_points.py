"""Simple points: voxels whose change leaves every component, loop and cavity as it is."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint32]

# The 3x3x3 neighbourhood of a voxel as 27 bits, the voxel itself is bit 13.
OFFSETS = tuple(product((-1, 0, 1), repeat=3))
_CENTRE = OFFSETS.index((0, 0, 0))


def _bits(chosen: list[int]) -> np.uint32:
    return np.uint32(sum(1 << position for position in chosen))


def _neighbours(position: int, among: list[int], *, faces_only: bool) -> np.uint32:
    """Those of the positions that touch one, by a face or at all."""
    steps = {other: np.abs(np.subtract(OFFSETS[other], OFFSETS[position])) for other in among if other != position}
    return _bits([other for other, step in steps.items() if (step.sum() == 1 if faces_only else step.max() == 1)])


_AROUND = [position for position in range(27) if position != _CENTRE]
_WITHOUT_CORNERS = [position for position in _AROUND if np.abs(OFFSETS[position]).sum() <= 2]
_FACES = [position for position in _AROUND if np.abs(OFFSETS[position]).sum() == 1]
_TOUCHING = {position: _neighbours(position, _AROUND, faces_only=False) for position in _AROUND}
_FACE_TO_FACE = {position: _neighbours(position, _WITHOUT_CORNERS, faces_only=True) for position in _WITHOUT_CORNERS}


def is_simple(neighbourhoods: Bits, *, connectivity: int) -> NDArray[np.bool_]:
    """Whether changing the voxel in the middle changes no Betti number.

    Args:
        neighbourhoods: (N,) uint32; bit i is the voxel at `OFFSETS[i]`, the middle one's own value does not matter.
        connectivity: of the foreground, 26 or 6.

    Returns:
        (N,) bool.

    Source:
        Bertrand and Malandain, A new characterization of three-dimensional simple points, Pattern Recognition Letters
        1994: one foreground component around the voxel and one background component that touches it.
    """
    if connectivity == 6:  # foreground and background change places
        neighbourhoods = ~neighbourhoods
    near = neighbourhoods & _bits(_AROUND)
    seed = _lowest(near)
    one_inside = (near != 0) & (_reached(seed, near, _TOUCHING) == near)
    far = ~neighbourhoods & _bits(_WITHOUT_CORNERS)
    touching = far & _bits(_FACES)
    reached = _reached(_lowest(touching), far, _FACE_TO_FACE)
    return one_inside & (touching != 0) & (reached & touching == touching)


def homotopic_towards(start: NDArray[np.bool_], target: NDArray[np.bool_], *, connectivity: int) -> NDArray[np.bool_]:
    """One mask changed voxel by voxel into another as far as no component, loop or cavity comes or goes.

    Where the result still differs from the target, only a change of topology leads further: a thin wall in the middle
    of a bridge, a membrane across a hole, a thread along a break. A boundary that is only somewhat off leaves nothing.

    Args:
        start: (X, Y, Z) bool.
        target: bool, same shape.
        connectivity: of the foreground, 26 or 6.

    Returns:
        (X, Y, Z) bool with the Betti numbers of `start`.

    Source:
        Jain et al., Boundary Learning by Optimization with Topological Constraints, CVPR 2010 (warping error). Differs
        in the order: voxels of one of eight interleaved grids change at once, as none is a neighbour of another.
    """
    padded = np.pad(start, 1)
    state, differs = padded.ravel(), np.pad(start != target, 1).ravel()
    strides = np.array(padded.strides)  # of bools: in voxels
    steps = np.array(OFFSETS) @ strides
    candidates = np.flatnonzero(differs)
    while len(candidates):
        grid = sum((index % 2) << axis for axis, index in enumerate(np.unravel_index(candidates, padded.shape)))
        changed = []
        for number in range(8):
            chosen = candidates[grid == number]
            chosen = chosen[is_simple(_neighbourhoods(state, chosen, steps), connectivity=connectivity)]
            state[chosen] ^= True
            differs[chosen] = False
            changed.append(chosen)
        around = (np.concatenate(changed)[:, None] + steps).ravel()
        candidates = np.unique(around[differs[around]])
    return padded[1:-1, 1:-1, 1:-1]


def _neighbourhoods(state: NDArray[np.bool_], voxels: NDArray[np.intp], steps: NDArray[np.intp]) -> Bits:
    bits = np.zeros(len(voxels), dtype=np.uint32)
    for position, step in enumerate(steps):
        bits |= state[voxels + step].astype(np.uint32) << np.uint32(position)
    return bits


def _lowest(bits: Bits) -> Bits:
    """The lowest bit that is set, 0 without any."""
    return bits & (~bits + np.uint32(1))


def _reached(seed: Bits, among: Bits, neighbours: dict[int, np.uint32]) -> Bits:
    """All bits of a set that a seed within it is connected with."""
    reached = seed.copy()
    while True:
        before = reached.copy()
        for position, touched in neighbours.items():
            has = (reached >> np.uint32(position)) & np.uint32(1)
            reached |= has * touched & among
        if np.array_equal(before, reached):
            return reached
