"""Pictures of what every loss term wants changed in a broken tube, a sheet with a hole and a bridge between two sheets.

    python benchmarks/loss_gradients.py                       # docs/images/losses_<term>.png for every term
    python benchmarks/loss_gradients.py --terms cldice dice

Each panel is a slice through the middle of a small volume. Colour is minus the gradient with respect to the logit: blue
voxels are to become foreground, red ones background. Black is the outline of the labels, grey that of the prediction.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from nnunet_topo.losses import TERMS, make_term

SHAPE = (20, 32, 32)


def cases() -> dict[str, tuple[np.ndarray, np.ndarray, tuple[int | slice, ...]]]:
    """Name -> labels, predicted mask, slice to show."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    tube = (z - 9.5) ** 2 + (y - 15.5) ** 2 <= 2.6**2
    broken = tube & ~((x >= 14) & (x < 18))
    sheet = (z >= 8) & (z < 11) & (y > 2) & (y < 29) & (x > 2) & (x < 29)
    holed = sheet & ((y - 15.5) ** 2 + (x - 15.5) ** 2 > 3.2**2)
    two = (((z >= 4) & (z < 7)) | ((z >= 12) & (z < 15))) & (y > 2) & (y < 29)
    bridged = two | ((z >= 4) & (z < 15) & ((y - 15.5) ** 2 + (x - 15.5) ** 2 <= 2.6**2))
    return {
        "broken tube": (tube, broken, (9, slice(None), slice(None))),
        "sheet with a hole": (sheet, holed, (9, slice(None), slice(None))),
        "bridge": (two, bridged, (slice(None), 15, slice(None))),
    }


def descent(name: str, labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Minus the gradient with respect to the logit of the foreground."""
    smooth = 2.0 * gaussian_filter(np.where(predicted, 1.0, -1.0), 0.7)
    logits = torch.from_numpy(smooth.astype(np.float32))[None, None].requires_grad_()
    make_term(name)(logits, torch.from_numpy(labels.astype(np.int16))[None, None]).backward()
    return -logits.grad[0, 0].numpy()


def draw(name: str, path: Path) -> None:
    """One row of panels for one term."""
    pictures = cases()
    figure, panels = plt.subplots(1, len(pictures), figsize=(3.2 * len(pictures), 3.2), layout="constrained")
    for panel, (title, (labels, predicted, shown)) in zip(panels, pictures.items(), strict=True):
        wanted = descent(name, labels, predicted)[shown]
        most = np.abs(wanted).max()
        limit = most or 1.0
        panel.imshow(wanted, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
        panel.contour(predicted[shown], levels=[0.5], colors="grey", linewidths=1.0)
        panel.contour(labels[shown], levels=[0.5], colors="black", linewidths=1.0)
        panel.set(xticks=[], yticks=[])
        panel.set_title(f"{title} ({f'most {most:.1e}' if most else 'nothing'})", fontsize=8)
    figure.suptitle(name, fontsize=10)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> int:
    """Draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--terms", nargs="+", default=list(TERMS), choices=list(TERMS), metavar="TERM")
    folder = Path(__file__).parents[1] / "docs" / "images"
    parser.add_argument("-o", "--output", type=Path, default=folder, help="folder to write to")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.terms:
        draw(name, arguments.output / f"losses_{name}.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
