"""A branching vessel tree with loops in a noisy microscopy-like volume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from nnunet_topo.data.synthetic_noise import smooth_noise
from nnunet_topo.metrics.betti import betti_numbers

_MURRAY = 3.0  # at a branching the cubes of the children's radii add up to the parent's cube
_THINNEST = 1.15  # radius of the last branches, in units of the finest spacing
_STEP = 0.8  # distance between the nodes of the tree, same units
_TISSUE, _BLOOD = 70.0, 105.0  # grey values before blur and noise


def vessel_volume(
    size: int, generator: np.random.Generator, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Image and label of one cubic stack of voxels.

    A tree grows from one face towards points scattered in the volume; some of its tips are then joined to other
    branches, which closes loops. Vessels are round in physical units, so an anisotropic stack shows flattened ones.
    Brightness fades along the thin vessels and some segments nearly vanish.

    Args:
        size: edge length in voxels, at least 24.
        generator: where the randomness comes from.
        spacing: of the voxels, (Z, Y, X), any unit; only the ratios matter.

    Returns:
        image: (Z, Y, X) float32 grey values.
        vessel: (Z, Y, X) bool.

    Source:
        Runions et al., Modeling trees with a space colonization algorithm, 2007, for the growth. Differs from it in:
        directions are perturbed, and Murray's law gives the radii.
    """
    relative = np.asarray(spacing, dtype=float) / min(spacing)
    extent = size * relative
    loops = 0
    while loops == 0:  # a small volume may draw only bridges that merge with the branch they start from
        nodes, parents = _grow_tree(size, extent, generator)
        radii = _murray_radii(parents)
        paths = _branches(nodes, parents, radii) + _bridges(nodes, parents, radii, size, generator)
        vessel, brightness = _draw(paths, size, relative, generator)
        loops = betti_numbers(vessel)[1]
    return _microscopy_image(vessel, brightness, relative, generator), vessel


def _grow_tree(
    size: int, extent: NDArray[np.float64], generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Positions of the tree's nodes (Z, Y, X in units of the finest spacing) and the parent of each (-1: the root)."""
    margin = 3.0
    targets = generator.uniform(margin, extent - 1 - margin, size=(8 + 3 * size // 4, 3))
    root = extent * generator.uniform(0.3, 0.7, size=3)
    root[0] = 0.0
    nodes, parents = [root], [-1]
    for _ in range(int(4 * extent.max() / _STEP)):
        positions = np.stack(nodes)
        tree = cKDTree(positions)
        distances, nearest = tree.query(targets)
        open_targets = distances > 2 * _STEP
        targets, nearest = targets[open_targets], nearest[open_targets]
        grown = []
        for node in np.unique(nearest):
            pulls = targets[nearest == node] - positions[node]
            pull = (pulls / np.linalg.norm(pulls, axis=1, keepdims=True)).mean(axis=0)
            direction = _unit(_unit(pull) + 0.45 * generator.standard_normal(3))
            candidate = np.clip(positions[node] + _STEP * direction, 0, extent - 1)
            # Two targets that pull in opposite directions would grow the same node for ever.
            if tree.query(candidate)[0] > 0.5 * _STEP:
                grown.append((candidate, int(node)))
        if not grown:
            break
        nodes += [position for position, _ in grown]
        parents += [parent for _, parent in grown]
    return np.stack(nodes), np.array(parents)


def _murray_radii(parents: NDArray[np.int64]) -> NDArray[np.float64]:
    cubes = np.zeros(len(parents))
    for node in range(len(parents) - 1, -1, -1):  # children come after their parents
        cubes[node] = cubes[node] or _THINNEST**_MURRAY
        if parents[node] >= 0:
            cubes[parents[node]] += cubes[node]
    return cubes ** (1 / _MURRAY)


def _branches(
    nodes: NDArray[np.float64], parents: NDArray[np.int64], radii: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """The tree cut at its branchings: paths of (points, 4), position and radius, each starting at its parent node."""
    children = np.bincount(parents[1:], minlength=len(parents))
    paths = []
    for end in np.flatnonzero(children != 1):
        chain, node = [int(end)], int(parents[end])
        while node >= 0:
            chain.append(node)
            if children[node] != 1:
                break
            node = int(parents[node])
        chain.reverse()
        width = radii[chain]
        width[0] = width[min(1, len(chain) - 1)]
        paths.append(np.column_stack([nodes[chain], width]))
    return paths


def _bridges(
    nodes: NDArray[np.float64],
    parents: NDArray[np.int64],
    radii: NDArray[np.float64],
    size: int,
    generator: np.random.Generator,
) -> list[NDArray[np.float64]]:
    """Bent thin vessels from tips of the tree to branches that are near in space but far along the tree."""
    leaves = generator.permutation(np.setdiff1d(np.arange(len(parents)), parents))
    bridges: list[NDArray[np.float64]] = []
    for leaf in leaves:
        if len(bridges) >= 2 + size // 12:
            break
        own = _ancestors(int(leaf), parents, int(0.4 * size / _STEP))
        distances = np.linalg.norm(nodes - nodes[leaf], axis=1)
        allowed = (distances - radii > 0.1 * size) & (distances < 0.4 * size)
        allowed[own] = False
        if not allowed.any():
            continue
        end = int(generator.choice(np.flatnonzero(allowed)))
        count = int(np.ceil(distances[end] / _STEP)) + 2
        along = np.linspace(0, 1, count)[:, None]
        bow = np.sin(np.pi * along) * generator.standard_normal(3) * 0.1 * distances[end]
        points = (1 - along) * nodes[leaf] + along * nodes[end] + bow
        bridges.append(np.column_stack([points, np.full(count, _THINNEST)]))
    return bridges


def _ancestors(node: int, parents: NDArray[np.int64], count: int) -> list[int]:
    chain = [node]
    while len(chain) <= count and parents[chain[-1]] >= 0:
        chain.append(int(parents[chain[-1]]))
    return chain


def _draw(
    paths: list[NDArray[np.float64]], size: int, relative: NDArray[np.float64], generator: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """The union of balls along the paths, and a brightness that varies from path to path and along each."""
    vessel = np.zeros((size,) * 3, dtype=bool)
    brightness = np.zeros((size,) * 3, dtype=np.float32)
    for path in paths:
        course = smooth_noise(generator, (len(path),), 0.1 * size)
        caliber = np.clip(1 + 0.12 * smooth_noise(generator, (len(path),), 0.08 * size), 0.75, 1.3)
        level = np.clip(0.6 + 0.12 * np.minimum(path[:, 3], 4) + 0.18 * course, 0.35, 1.2)
        for point, thickness, value in zip(path, caliber, level, strict=True):
            _draw_ball(vessel, brightness, point[:3], max(1.0, point[3] * thickness), float(value), relative)
    return vessel, brightness


def _draw_ball(
    vessel: NDArray[np.bool_],
    brightness: NDArray[np.float32],
    centre: NDArray[np.float64],
    radius: float,
    value: float,
    relative: NDArray[np.float64],
) -> None:
    low = np.maximum(np.floor((centre - radius) / relative), 0).astype(int)
    high = np.minimum(np.ceil((centre + radius) / relative) + 1, vessel.shape).astype(int)
    if np.any(low >= high):
        return
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    squared = np.zeros((1, 1, 1))
    for axis in range(3):
        offset = np.arange(low[axis], high[axis]) * relative[axis] - centre[axis]
        squared = squared + (offset**2).reshape([-1 if other == axis else 1 for other in range(3)])
    # A coarse axis may have no plane within the ball: the nearest one is taken, or thin vessels would break there.
    ball = squared <= max(radius**2, float(squared.min()))
    vessel[box] |= ball
    brightness[box] = np.where(ball, np.maximum(brightness[box], value), brightness[box])


def _microscopy_image(
    vessel: NDArray[np.bool_],
    brightness: NDArray[np.float32],
    relative: NDArray[np.float64],
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Grey values: blur wider along Z, uneven tissue, dim haloes, signal-dependent noise."""
    size = vessel.shape[0]
    blur = np.array([1.2, 0.8, 0.8]) / relative
    signal = gaussian_filter(brightness, blur)
    tissue = _TISSUE * (1 + 0.12 * smooth_noise(generator, vessel.shape, size / 6 / relative))
    cells = gaussian_filter((generator.random(vessel.shape) > 1 - 1 / 1200).astype(np.float32) * 9, 1.2 / relative)
    grey = tissue + _BLOOD * signal + 55 * cells
    noise = 0.55 * smooth_noise(generator, vessel.shape, 0.6 / relative) + 0.6 * generator.standard_normal(vessel.shape)
    return np.maximum(grey + noise * 1.6 * np.sqrt(grey), 0).round(1).astype(np.float32)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
