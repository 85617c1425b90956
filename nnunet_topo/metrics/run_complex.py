"""A binary volume as a small cell complex: what runs along the first axis is one cell."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

Indices = NDArray[np.int64]
Words = NDArray[np.uint64]


class RunComplex:
    """Points, edges and squares of a volume whose foreground voxels are points joined to their 6 neighbours.

    A run is a longest row of equal cells along the first axis: of voxels, of pairs of neighbours along the second or
    the third axis, or of 2 x 2 voxels in the plane of these two. Pairs along the first axis lie inside the runs of
    voxels, and the other squares and the cubes inside the runs of pairs and of 2 x 2 voxels, so shrinking every run to
    a single cell changes no component, loop or cavity. Thin sheets across the first axis keep a cell a voxel; along it
    they nearly vanish.

    Each kind of run is known by the sorted positions where runs start, counted with the first axis running fastest, so
    that the run of a position is found by bisection.

    Attributes:
        shape: (X, Y, Z) of the volume.
        points: starts of the runs of voxels; a run is a node of the graph.
        edges_y: starts of the runs of pairs (x, y, z), (x, y + 1, z).
        edges_z: likewise along z.
        squares: starts of the runs of 2 x 2 voxels.
        tails: node at the lower end of every edge, first of `edges_y`, then of `edges_z`.
        heads: node at the upper end.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        """Find the runs of a (X, Y, Z) mask."""
        self.shape = mask.shape
        size_x, _, size_z = mask.shape
        self._step_y, self._step_z = size_z * size_x, size_x
        volume = np.ascontiguousarray(mask.transpose(1, 2, 0))
        pairs_z = volume[:, :-1] & volume[:, 1:]
        self.points = _run_starts(volume)
        self.edges_y = _run_starts(volume[:-1] & volume[1:])
        self.edges_z = self._with_last_z(_run_starts(pairs_z))
        self.squares = self._with_last_z(_run_starts(pairs_z[:-1] & pairs_z[1:]))
        self.tails = np.concatenate([self.point_of(self.edges_y), self.point_of(self.edges_z)])
        self.heads = np.concatenate(
            [self.point_of(self.edges_y + self._step_y), self.point_of(self.edges_z + self._step_z)]
        )

    def point_of(self, positions: Indices) -> Indices:
        """Node that holds each position."""
        return _run_of(self.points, positions)

    def edge_of(self, positions_y: Indices, positions_z: Indices) -> Indices:
        """Edge that holds each pair along y, then each along z, given by its lower end."""
        return np.concatenate(
            [_run_of(self.edges_y, positions_y), self.edges_y.size + _run_of(self.edges_z, positions_z)]
        )

    @cached_property
    def square_sides(self) -> Indices:
        """(squares, 4) edges around every square."""
        count, lower = self.squares.size, self.squares
        both = self.edge_of(
            np.concatenate([lower, lower + self._step_z]), np.concatenate([lower, lower + self._step_y])
        )
        return both.reshape(4, count).T

    @cached_property
    def components(self) -> Indices:
        """Component of every node, numbered from 0."""
        _, labels = connected_components(graph(self.points.size, self.tails, self.heads), directed=False)
        return labels.astype(np.int64)

    @property
    def euler_characteristic(self) -> int:
        """Points - edges + squares."""
        return self.points.size - self.tails.size + self.squares.size

    def point_order(self) -> Indices:
        """Rank at which a sweep in order of the coordinates (x, then y, then z) reaches every node from outside.

        The sweep joins neighbours in the order of the lower one's coordinates, and then of the axis between them.
        -1 for the node of the first voxel of the volume.
        """
        x, y, z = self._coordinates(self.points)
        along_x, along_y, along_z = (self._cell(*lower) for lower in ((x - 1, y, z), (x, y - 1, z), (x, y, z - 1)))
        return np.select([x > 0, y > 0, z > 0], [3 * along_x, 3 * along_y + 1, 3 * along_z + 2], -1)

    def edge_order(self) -> Indices:
        """Rank of the square that a sweep in order of the coordinates uses to fill the loop that the edge closes.

        -1 for edges that close none. Squares come in the order of their lowest corner, then yz, xz, xy.
        """
        x, y, z = self._coordinates(self.edges_y)
        order_y = np.where(x > 0, 3 * self._cell(x - 1, y, z) + 2, -1)
        x, y, z = self._coordinates(self.edges_z)
        order_z = np.select([x > 0, y > 0], [3 * self._cell(x - 1, y, z) + 1, 3 * self._cell(x, y - 1, z)], -1)
        return np.concatenate([order_y, order_z])

    def _coordinates(self, positions: Indices) -> tuple[Indices, Indices, Indices]:
        rows, x = np.divmod(positions, self._step_z)
        y, z = np.divmod(rows, self.shape[2])
        return x, y, z

    def _cell(self, x: Indices, y: Indices, z: Indices) -> Indices:
        return (x * self.shape[1] + y) * self.shape[2] + z

    def _with_last_z(self, positions: Indices) -> Indices:
        """Positions in the volume of positions in an array that lacks its last plane along z."""
        return positions + positions // max(self._step_y - self._step_z, 1) * self._step_z


def graph(nodes: int, tails: Indices, heads: Indices, weights: NDArray[np.float64] | None = None) -> csr_array:
    """Adjacency of a graph without parallel edges."""
    return csr_array((np.ones(tails.size) if weights is None else weights, (tails, heads)), shape=(nodes, nodes))


def spanning_forest(nodes: int, tails: Indices, heads: Indices, order: Indices) -> Indices:
    """Edges of the spanning forest that takes every edge that closes no cycle, in the given order of all edges."""
    weights = np.empty(order.size)
    weights[order] = np.arange(1, order.size + 1)
    return order[minimum_spanning_tree(graph(nodes, tails, heads, weights)).data.astype(np.int64) - 1]


def sums_from_roots(nodes: int, tails: Indices, heads: Indices, values: Words) -> Words:
    """Sum modulo 2 of the values along the path from its tree's root to every node of a forest.

    Args:
        nodes: how many.
        tails: one end of every edge.
        heads: the other end.
        values: (edges, W) bits.

    Returns:
        (nodes, W).
    """
    _, labels = connected_components(graph(nodes, tails, heads), directed=False)
    roots = np.unique(labels, return_index=True)[1]
    # One more node above all roots makes a single tree.
    above = graph(nodes + 1, np.concatenate([tails, np.full(roots.size, nodes)]), np.concatenate([heads, roots]))
    _, parents = breadth_first_order(above, nodes, directed=False)
    parents[nodes] = nodes
    sums = np.zeros((nodes + 1, values.shape[1]), np.uint64)
    sums[np.where(parents[heads] == tails, heads, tails)] = values
    # Every round doubles the length of the paths that are summed.
    while np.any(parents != nodes):
        sums ^= sums[parents]
        parents = parents[parents]
    return sums[:nodes]


def _run_starts(mask: NDArray[np.bool_]) -> Indices:
    starts = mask.copy()
    starts[..., 1:] &= ~mask[..., :-1]
    return np.flatnonzero(starts)


def _run_of(starts: Indices, positions: Indices) -> Indices:
    return np.searchsorted(starts, positions, side="right") - 1
