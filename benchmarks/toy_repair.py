"""What each loss term mends and breaks when nothing but the loss decides.

    python benchmarks/toy_repair.py --output benchmarks/results --picture docs/images/toy_repair.png

There is no network: the logits of a small volume (two sheets close together, and a tube) are fitted directly. They
start right and fairly sure (at 2, with noise of 0.2) everywhere but at four errors: a gap in the tube, a bridge between
the sheets, a hole in a sheet and a speck in the background. Each loss is minimised alone by gradient descent, each step
as long as it takes to change the logit with the largest gradient by 0.1. So a term mends what its gradient points at
first and most, and breaks what it does not hold on to. `ce`, `dice` and the recipes' losses of their last phase
(`nnunet` as ce + dice) are treated alike; `betti_matching` sees the whole volume.

An error is mended when the Betti numbers of a box around it are those of the labels. What a term breaks shows in the
Betti numbers of the whole volume and in the wrong voxels at the end.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from nnunet_topo.errors import ConfigError
from nnunet_topo.losses import NNUNET_TERM, TERMS, CompoundLoss, make_term
from nnunet_topo.metrics import betti_errors, betti_matching_error, betti_numbers
from nnunet_topo.recipe import load_recipe

SHAPE = (20, 24, 28)
SURE = 2.0
NOISE = 0.2
STEP = 0.1
STEPS = 200
ERRORS = {
    "gap": (slice(13, 19), slice(9, 15), slice(9, 19)),
    "bridge": (slice(0, 9), slice(2, 9), slice(2, 9)),
    "hole": (slice(0, 4), slice(13, 21), slice(16, 24)),
    "speck": (slice(9, 13), slice(1, 7), slice(20, 26)),
}
"""Where to look for each error."""
RECIPES = ("surface", "vessel", "membrane")


def make_problem() -> tuple[np.ndarray, np.ndarray]:
    """The labels' foreground, and that of the start with its four errors."""
    truth = np.zeros(SHAPE, bool)
    truth[1:3], truth[5:7] = True, True
    truth[15:18, 11:14] = True
    start = truth.copy()
    start[15:18, 11:14, 13:15] = False
    start[3:5, 5, 5] = True
    start[1:3, 16:18, 19:21] = False
    start[10:12, 3:5, 22:24] = True
    return truth, start


def make_loss(name: str) -> CompoundLoss:
    """A term alone, 'ce + dice', or the last phase of a recipe."""
    if name in TERMS:
        weights, parameters = {name: 1.0}, {"betti_matching": {"size": max(SHAPE)}}
    elif name == "ce + dice":
        weights, parameters = {"ce": 1.0, "dice": 1.0}, {}
    else:
        recipe = load_recipe(name)
        weights, parameters = dict(recipe.phases[-1].weights), recipe.losses
        stock = weights.pop(NNUNET_TERM, 0.0)
        weights |= {"ce": stock, "dice": stock}
    loss = CompoundLoss({term: make_term(term, **parameters.get(term, {})) for term in weights}, scale_weights=None)
    loss.set_weights(weights)
    return loss


def fit(name: str, steps: int = STEPS) -> dict[str, object]:
    """Fits the logits to one loss.

    Returns:
        `mended`: error -> step from which on it stays mended, or None; `made`: what is wrong at the end; `mask`: the
        foreground at the end (X, Y, Z) bool.
    """
    truth, start = make_problem()
    labels = torch.from_numpy(truth.astype(np.int16))[None, None]
    noise = NOISE * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    logits = (torch.where(torch.from_numpy(start), SURE, -SURE) + noise)[None, None].requires_grad_()
    loss = make_loss(name)
    parts = {error: betti_numbers(truth[box]) for error, box in ERRORS.items()}
    mended: dict[str, int | None] = dict.fromkeys(ERRORS)
    share = None
    for step in range(steps + 1):
        mask = (logits.detach() > 0)[0, 0].numpy()
        for error, box in ERRORS.items():
            if betti_numbers(mask[box]) != parts[error]:
                mended[error] = None
            elif mended[error] is None:
                mended[error] = step
        (gradient,) = torch.autograd.grad(loss(logits, labels), logits)
        size = gradient.abs()
        if share is None:
            wrong = torch.from_numpy(truth ^ start)
            share = float(size[0, 0][wrong].sum() / size.sum().clamp_min(1e-30))
        if size.max() == 0:
            break
        logits = (logits.detach() - STEP * gradient / size.max()).requires_grad_()
    return {
        "mended": mended,
        "share_of_gradient_on_errors": round(share, 4),
        "betti": betti_numbers(mask),
        "betti_errors": betti_errors(mask, truth),
        "betti_matching_error": betti_matching_error(mask, truth),
        "missed_voxels": int((truth & ~mask).sum()),
        "false_voxels": int((mask & ~truth).sum()),
        "mask": mask,
    }


def table(results: dict[str, dict[str, object]]) -> str:
    """Markdown."""
    truth, start = make_problem()
    head = ["loss", *ERRORS, "gradient on errors", "Betti numbers", "Betti matching error", "missed", "false"]
    rows = [head, ["---"] * len(head)]
    for name, result in results.items():
        steps = ["never" if step is None else str(step) for step in result["mended"].values()]
        rows.append(
            [
                f"`{name}`" if name in TERMS else name,
                *steps,
                f"{100 * result['share_of_gradient_on_errors']:.0f} %",
                " ".join(map(str, result["betti"])),
                str(result["betti_matching_error"]),
                str(result["missed_voxels"]),
                str(result["false_voxels"]),
            ]
        )
    numbers = " ".join(map(str, betti_numbers(truth)))
    return "\n".join(
        [
            "# What each loss mends when nothing but the loss decides",
            "",
            "Made by `python benchmarks/toy_repair.py`; see its head for the problem. Numbers under the four errors",
            f"are the steps after which each is mended for good ({STEPS} in all). Labels: Betti numbers {numbers};",
            f"start: {' '.join(map(str, betti_numbers(start)))}, "
            f"Betti matching error {betti_matching_error(start, truth)}, "
            f"{int((truth & ~start).sum())} voxels missed, {int((start & ~truth).sum())} false, of {truth.size}.",
            "The other columns describe the end; 'gradient on errors' is the share of the first gradient (sum of",
            "magnitudes) that lies on the wrong voxels; without any gradient it is 0.",
            "",
            *("| " + " | ".join(row) + " |" for row in rows),
            "",
            "The labels are the target here, so plain `ce` mends everything: what differs is where a term looks, how",
            "soon it acts, and what it breaks when it is alone. It says nothing of what a network learns.",
            "",
            "![masks after the fit](../../docs/images/toy_repair.png)",
            "",
        ]
    )


def draw(results: dict[str, dict[str, object]], file: Path) -> None:
    """A picture of each result: one slice through each error, wrong voxels in colour."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    truth, start = make_problem()
    cuts = {
        "gap": np.s_[11:20, 12, :],
        "bridge": np.s_[0:9, 5, :],
        "hole": np.s_[1, 9:24, :],
        "speck": np.s_[11, 0:9, :],
    }
    masks = {"start": start, **{name: result["mask"] for name, result in results.items()}}
    columns = 5
    rows = -(-len(masks) // columns)
    figure = pyplot.figure(figsize=(2.6 * columns, 3.6 * rows), layout="constrained")
    grid = figure.subfigures(rows, columns)
    for panel, (name, mask) in zip(grid.flat, masks.items(), strict=False):
        panel.suptitle(name, fontsize=11)
        heights = [truth[cut].shape[0] for cut in cuts.values()]
        for axis, (error, cut) in zip(panel.subplots(len(cuts), 1, height_ratios=heights), cuts.items(), strict=True):
            colour = np.ones((*truth[cut].shape, 3))
            colour[truth[cut] & mask[cut]] = (0.55, 0.55, 0.55)
            colour[truth[cut] & ~mask[cut]] = (0.15, 0.35, 0.85)
            colour[~truth[cut] & mask[cut]] = (0.9, 0.45, 0.1)
            axis.imshow(colour, interpolation="nearest", aspect="equal")
            axis.set(xticks=[], yticks=[])
            axis.set_ylabel(error, fontsize=8)
    figure.supxlabel("grey: right   blue: missed   orange: false", fontsize=11)
    figure.savefig(file, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="+", default=["ce + dice", *TERMS, *RECIPES])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--output", type=Path, help="folder for toy_repair.json and toy_repair.md")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        results = {name: fit(name, arguments.steps) for name in arguments.losses}
    except ConfigError as error:
        parser.error(str(error))
    print(table(results))
    if arguments.picture:
        draw(results, arguments.picture)
    if arguments.output:
        (arguments.output / "toy_repair.md").write_text(table(results), encoding="utf-8")
        content = {name: {key: v for key, v in result.items() if key != "mask"} for name, result in results.items()}
        document = {"command": "python benchmarks/toy_repair.py", "steps": arguments.steps, "results": content}
        (arguments.output / "toy_repair.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
