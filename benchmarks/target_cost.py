"""Time of the label-derived targets, which nnU-Net's data loading workers compute beside the training step.

    OMP_NUM_THREADS=1 python benchmarks/target_cost.py -o benchmarks/results/target_cost_cpu.json

One patch, one structure, one core: the least processor seconds over the rounds, of each target, and their sum for what
the last phase of each recipe needs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from loss_cost import SEED, tubes
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from nnunet_topo.losses import LABEL_TARGETS, TERMS, make_term
from nnunet_topo.losses.label_targets import label_target
from nnunet_topo.recipe import load_recipe

Mask = NDArray[np.bool_]


def sheets(n: int) -> Mask:
    """Wavy sheets, 3 to 4 voxels thick, 16 voxels apart."""
    z, y, x = np.meshgrid(*[np.arange(n)] * 3, indexing="ij")
    return (z + 6 * np.sin(y / 20) + 5 * np.cos(x / 17)) % 16 < 3.4


def walls(n: int) -> Mask:
    """Walls about 3 voxels thick between cells about 20 voxels wide, each the place nearest to its random centre."""
    rng = np.random.default_rng(SEED)
    centres = np.ones((n, n, n), bool)
    centres[tuple(rng.integers(0, n, (3, (n // 20 + 1) ** 3)))] = False
    nearest = distance_transform_edt(centres, return_distances=False, return_indices=True)
    cell = np.ravel_multi_index(tuple(nearest), (n, n, n))
    wall = np.zeros((n, n, n), bool)
    for axis in range(3):
        differs = np.diff(cell, axis=axis) != 0
        for shift in (slice(None, -1), slice(1, None)):
            where = tuple(shift if a == axis else slice(None) for a in range(3))
            wall[where] |= differs
    return wall


PICTURES: dict[str, Callable[[int], Mask]] = {"tubes": tubes, "sheets": sheets, "walls": walls}
RECIPES = {"surface": "sheets", "vessel": "tubes", "membrane": "walls"}
"""Recipe -> the picture of what it is made for."""


def target_names(recipe: str) -> list[str]:
    """What the last phase of a recipe needs."""
    loaded = load_recipe(recipe)
    terms = [make_term(term, **loaded.losses.get(term, {})) for term in loaded.phases[-1].weights if term in TERMS]
    return sorted({name for term in terms for name in term.target_names})


def seconds_of(name: str, onehot: torch.Tensor, rounds: int) -> float:
    """Least processor seconds of one target."""
    seconds = []
    for _ in range(rounds):
        start = process_time()
        label_target(name, onehot, None, None)
        seconds.append(process_time() - start)
    return round(min(seconds), 4)


def main() -> int:
    """Time the targets, print them and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--patch", type=int, nargs="+", default=[64, 96, 128], help="edges of the patches in voxels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, default=None, help="JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = {}
    for n in arguments.patch:
        onehots = {picture: torch.from_numpy(make(n))[None, None] for picture, make in PICTURES.items()}
        targets = {
            name: {picture: seconds_of(name, onehot, arguments.rounds) for picture, onehot in onehots.items()}
            for name in LABEL_TARGETS
        }
        recipes = {
            recipe: round(sum(targets[name][picture] for name in target_names(recipe)), 4)
            for recipe, picture in RECIPES.items()
        }
        cases[f"{n}^3"] = {"recipes": recipes, "targets": targets}
        print(f"{n}^3", json.dumps(cases[f"{n}^3"], indent=2))
    result = {
        "command": "python benchmarks/target_cost.py " + " ".join(sys.argv[1:]),
        "device": f"CPU, {platform.machine()}, 1 thread",
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "what": "least processor seconds a patch",
        "recipe_pictures": RECIPES,
        "rounds": arguments.rounds,
        "seed": SEED,
        "cases": cases,
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
