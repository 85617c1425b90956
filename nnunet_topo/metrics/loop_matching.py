"""How many loops of two masks Betti matching pairs up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from nnunet_topo.errors import DataError
from nnunet_topo.metrics.run_complex import Indices, RunComplex, Words, graph, spanning_forest, sums_from_roots

_MOST_BYTES = 2**31


def matched_loops(union: RunComplex, loops: int, first: RunComplex, second: RunComplex) -> int:
    """Number of loops of two masks that Betti matching pairs up.

    Sweep the union in order of the coordinates. An edge that closes a loop which no surface in the union fills brings
    a new loop; there are as many such edges as loops. A mask has a loop at such an edge if one of its own loops can be
    pushed, inside the union, to where the sweep has come, and no further back. Betti matching pairs the loops of the
    two masks that are at the same edge.

    Why this is Betti matching: in the filtration of the union, whose remaining cells come in order of their
    coordinates, a loop dies with the square that finishes a surface across it. The squares already there fill just
    those loops that can be pushed into the part that the sweep has passed, so the order of death is that of the sweep.
    Nothing outside the union takes part.

    A mask has no loop at an edge if and only if the edge also brings a new loop once all loops of the mask are filled.
    So only the loops of the union that the mask lacks are computed, which are few where masks agree.

    Args:
        union: of both masks.
        loops: its number of loops.
        first: one mask.
        second: the other one.

    Returns:
        At least 0, at most the smaller of the masks' numbers of loops.

    Raises:
        DataError: the masks differ in so many loops (about 100 000) that the memory would not do.

    Source:
        Stucki et al., Topologically faithful image segmentation via induced matching of persistence barcodes, ICML
        2023, definition 4.4, for binary images in Stucki et al., Efficient Betti matching enables topology-aware 3D
        segmentation via persistent homology, 2024, ties broken as in its implementation.
    """
    if loops == 0:
        return 0
    order = np.argsort(union.edge_order(), kind="stable")
    forest = spanning_forest(union.points.size, union.tails, union.heads, order)
    closing = order[~np.isin(order, forest)]
    lacking: set[int] = set()
    for mask in (first, second):
        lacking |= _edges_that_bring_loops(union, _loops_beyond(union, mask), forest, closing)
    return loops - len(lacking)


class _Sums:
    """Values of many unknowns modulo 2, in a basis: equal ones form a group, and group 0 is 0."""

    def __init__(self, groups: Indices, values: Words) -> None:
        self.groups = groups  # (unknowns,)
        self.values = values  # (groups, W) bits

    def of(self, unknowns: Indices) -> Words:
        return self.values[self.groups[unknowns]]


def _edges_that_bring_loops(union: RunComplex, loops_of: _Sums, forest: Indices, closing: Indices) -> set[int]:
    """Positions in `closing`, which is in the order of the sweep, of edges that bring a new loop.

    Args:
        union: its graph.
        loops_of: loops of every edge; a cycle of edges surrounds the sum of these.
        forest: edges taken by the sweep before any that closes a cycle with them.
        closing: the other edges.
    """
    # Nodes tied by edges that add nothing become one: what is left is small where the masks agree.
    plain = loops_of.groups[forest] == 0
    ties, rest = forest[plain], forest[~plain]
    count, hubs = connected_components(graph(union.points.size, union.tails[ties], union.heads[ties]), directed=False)
    sums = sums_from_roots(count, hubs[union.tails[rest]], hubs[union.heads[rest]], loops_of.of(rest))
    tails, heads, groups = hubs[union.tails[closing]], hubs[union.heads[closing]], loops_of.groups[closing]
    candidates = np.flatnonzero((tails != heads) | (groups > 0))
    # Of equal ones the first alone can bring anything. In two steps, since the product of three would not fit.
    _, pairs = np.unique(tails[candidates].astype(np.int64) * count + heads[candidates], return_inverse=True)
    _, firsts = np.unique(pairs * loops_of.values.shape[0] + groups[candidates], return_index=True)
    candidates = candidates[np.sort(firsts)]
    values = loops_of.values[groups[candidates]] ^ sums[tails[candidates]] ^ sums[heads[candidates]]
    basis = Basis()
    return {
        position for position, value in zip(candidates.tolist(), _as_integers(values), strict=True) if basis.add(value)
    }


def _loops_beyond(union: RunComplex, mask: RunComplex) -> _Sums:
    """Loops of the union's edges, those of the mask counted as filled.

    Every component of the mask becomes one node, tied to the nodes of the union that it lies in; an edge of the mask
    and the ties at its ends surround nothing, like the sides of a square.
    """
    edges, nodes = union.tails.size, union.points.size
    holders = union.point_of(mask.points)
    components = nodes + mask.components
    ties = np.arange(edges, edges + holders.size)
    tails, heads = np.concatenate([union.tails, components]), np.concatenate([union.heads, holders])
    # The ties first, one for each pair of nodes, so that the forest follows the mask; then the edges along y, so that
    # its trees span whole slices, and the edges between two slices come out equal in large groups.
    single = ties[np.unique(components * nodes + holders, return_index=True)[1]]
    order = np.concatenate([single, np.arange(edges)])
    count = nodes + int(mask.components.max(initial=-1)) + 1
    forest = order[spanning_forest(count, tails[order], heads[order], np.arange(order.size))]
    nothing = edges + holders.size
    covered = union.edge_of(mask.edges_y, mask.edges_z)
    triangles = np.stack([covered, ties[mask.tails], ties[mask.heads], np.full(covered.size, nothing)], axis=1)
    return _solve(nothing + 1, np.concatenate([union.square_sides, triangles]), np.append(forest, nothing))


def _solve(unknowns: int, relations: Indices, zeros: Indices) -> _Sums:
    """All solutions modulo 2.

    Args:
        unknowns: how many.
        relations: (R, 4) unknowns whose sum is 0.
        zeros: unknowns that are 0.
    """
    groups = np.zeros(unknowns, np.int64)
    free = np.ones(unknowns, bool)
    free[zeros] = False
    count = int(np.count_nonzero(free)) + 1
    groups[free] = np.arange(1, count)
    while True:
        sums = _cancel_pairs(groups[relations])
        left = sums[:, -1] > 0
        sums, relations = sums[left], relations[left]
        equal = sums[:, 1] == 0
        if not equal.any():
            break
        # Two that sum to 0 are equal, a single one is equal to 0.
        joined = np.unique(sums[equal, 2] * count + sums[equal, 3])
        count, labels = connected_components(graph(count, joined // count, joined % count), directed=False)
        names = np.arange(count)
        names[[0, labels[0]]] = names[[labels[0], 0]]
        groups = names[labels][groups]
    return _Sums(groups, _eliminate(count, np.unique(sums, axis=0)))


def _cancel_pairs(sums: Indices) -> Indices:
    """Sorted rows; equal entries taken out two by two."""
    sums = np.sort(sums, axis=1)
    for column in range(sums.shape[1] - 1):
        pair = sums[:, column] == sums[:, column + 1]
        sums[pair, column : column + 2] = 0
    return np.sort(sums, axis=1)


def _eliminate(unknowns: int, relations: Indices) -> Words:
    """(unknowns, W) bits in a basis of all solutions; unknown 0 is 0, and each that is not free a sum of lower ones."""
    basis = Basis()
    for row in relations.tolist():
        value = 0
        for unknown in row:
            value ^= 1 << unknown
        basis.add(value & ~1)
    free = [unknown for unknown in range(1, unknowns) if unknown not in basis.rows]
    if unknowns * len(free) > 8 * _MOST_BYTES:
        raise DataError(
            f"prediction: expected a mask whose loops are mostly those of the ground truth, got {len(free)} loops that "
            "only one of them has. Smooth it or raise its threshold: it is noise."
        )
    values = [0] * unknowns
    for position, unknown in enumerate(free):
        values[unknown] = 1 << position
    for unknown in sorted(basis.rows):
        for lower in _ones(basis.rows[unknown] ^ 1 << unknown):
            values[unknown] ^= values[lower]
    size_bytes = 8 * max(1, -(-len(free) // 64))
    packed = b"".join(value.to_bytes(size_bytes, "little") for value in values)
    return np.frombuffer(packed, "<u8").reshape(unknowns, -1)


class Basis:
    """Independent bit vectors, written as integers, by their highest bit."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}

    def add(self, value: int) -> bool:
        """Whether the vector is independent of those added before."""
        while value:
            highest = value.bit_length() - 1
            row = self.rows.get(highest)
            if row is None:
                self.rows[highest] = value
                return True
            value ^= row
        return False


def _ones(value: int) -> Iterator[int]:
    while value:
        highest = value.bit_length() - 1
        yield highest
        value ^= 1 << highest


def _as_integers(values: Words) -> Iterator[int]:
    size_bytes = 8 * values.shape[1]
    packed: NDArray[np.uint8] = np.ascontiguousarray(values, "<u8").view(np.uint8).reshape(-1, size_bytes)
    return (int.from_bytes(row.tobytes(), "little") for row in packed)
