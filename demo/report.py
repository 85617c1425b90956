"""The demo's page of pictures: one HTML file without any other, and the contact sheet in it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scores import HEADINGS, Score, Scores, rows, verdict

# Right, missed, added: told apart by colour-blind people too.
RIGHT, MISSED, ADDED = "#9db8c9", "#0072B2", "#D55E00"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2126; background: #fff }
body { max-width: 1120px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin: 0 0 .3rem }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem }
table { border-collapse: collapse; font-size: .92rem }
th, td { padding: .25rem .8rem; text-align: left; border-bottom: 1px solid #d5dade }
th { border-bottom: 2px solid #1c2126 }
.number { text-align: right; font-variant-numeric: tabular-nums }
tr.mean td { font-weight: 600; background: #f1f4f6 }
img { max-width: 100%; height: auto }
.note { color: #55606a }
"""


def write_report(
    folder: Path,
    raw: Path,
    scores: Scores,
    best: Mapping[str, Any],
    progress: Path,
    durations_s: Sequence[tuple[str, float]],
    *,
    steps: int,
) -> None:
    """Write `report.png` and `report.html`.

    Args:
        folder: where to; holds `predictions/<trainer>/<case>.tif`.
        raw: the raw dataset with imagesTs and labelsTs.
        scores: of the held-out cases.
        best: nnU-Net's inference_information.json.
        progress: progress_topo.png of one fold.
        durations_s: name and seconds of the steps so far.
        steps: training steps of each run.
    """
    sheet = contact_sheet(folder, raw, scores)
    (folder / "report.png").write_bytes(sheet)
    trainers = " and ".join(next(iter(scores.values())))
    body = [
        "<h1>nnunet-topo demo</h1>",
        f"<p>{trainers}, same plans, same number of steps, on synthetic scrolls.</p>",
        f"<p><strong>{html.escape(verdict(len(scores), steps))}</strong></p>",
        "<h2>Held-out cases, middle slice</h2>",
        _image(sheet, "image, label, predictions and errors of every held-out case"),
        "<h2>Scores</h2>",
        _table(HEADINGS, rows(scores)),
        "<p class=note>b0 components, b1 tunnels, b2 cavities, counted with 26 neighbours; the error is |predicted - "
        "label|. Equal numbers do not prove equal shapes: Betti numbers count, they do not locate.</p>",
        "<h2>Choice of nnUNetv2_find_best_configuration</h2>",
        _best_table(best),
        "<p class=note>By mean Dice of the cross-validation. nnU-Net has no topology score to choose by.</p>",
        "<h2>progress_topo.png of fold 0</h2>",
        _image(progress.read_bytes(), "loss terms, weights, learning rate and foreground of every epoch"),
        "<h2>Steps</h2>",
        _table(("step", "seconds"), [(name, f"{seconds:.1f}") for name, seconds in durations_s]),
    ]
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>nnunet-topo demo</title><style>{STYLE}</style></head><body>
{chr(10).join(body)}
</body></html>
"""
    (folder / "report.html").write_text(page, encoding="utf-8")


def contact_sheet(folder: Path, raw: Path, scores: Scores) -> bytes:
    """A PNG with a row per held-out case: image, label, and prediction and errors of each trainer."""
    trainers = list(next(iter(scores.values())))
    columns = 2 + 2 * len(trainers)
    figure = Figure(figsize=(2.15 * columns, 2.5 * len(scores) + 0.4), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(scores), columns, squeeze=False)
    for panels, (case, by_trainer) in zip(grid, scores.items(), strict=True):
        image, label = (
            tifffile.imread(raw / "imagesTs" / f"{case}_0000.tif"),
            tifffile.imread(raw / "labelsTs" / f"{case}.tif"),
        )
        middle = len(image) // 2
        truth = label[middle] == 1
        panels[0].imshow(image[middle], cmap="gray", interpolation="nearest")
        panels[0].set_title(f"{case}, slice {middle}", fontsize=9)
        _show_mask(panels[1], truth, "label: b0 b1 b2 = " + _numbers(next(iter(by_trainer.values())).betti_label))
        for index, (trainer, score) in enumerate(by_trainer.items()):
            predicted = tifffile.imread(folder / "predictions" / trainer / f"{case}.tif")[middle] == 1
            _show_mask(panels[2 + 2 * index], predicted, _caption(trainer, score))
            _show_errors(panels[3 + 2 * index], truth, predicted)
        for axes in panels:
            axes.set_axis_off()
    kinds = {"right": RIGHT, "missed": MISSED, "added": ADDED}
    figure.legend(
        handles=[Patch(color=color, label=name) for name, color in kinds.items()], loc="outside lower right", ncols=3
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _show_mask(axes: Any, mask: NDArray[np.bool_], title: str) -> None:
    axes.imshow(mask, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=9)


def _show_errors(axes: Any, truth: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> None:
    kinds = np.select([truth & predicted, truth & ~predicted, ~truth & predicted], [1, 2, 3], default=0)
    axes.imshow(kinds, cmap=ListedColormap(["white", RIGHT, MISSED, ADDED]), vmin=0, vmax=3, interpolation="nearest")
    axes.set_title(f"{np.count_nonzero(kinds == 2)} missed, {np.count_nonzero(kinds == 3)} added", fontsize=9)


def _caption(trainer: str, score: Score) -> str:
    return f"{_short(trainer)}\nDice {score.dice:.3f}, b = {_numbers(score.betti)}"


def _short(trainer: str) -> str:
    return "stock" if trainer == "nnUNetTrainer" else trainer.removeprefix("nnUNetTrainer")


def _numbers(betti: Sequence[int]) -> str:
    return " ".join(str(number) for number in betti)


def _best_table(best: Mapping[str, Any]) -> str:
    results = sorted(best["all_results"].items(), key=lambda item: -item[1])
    lines = [(name.replace("___", " | ").replace("__", ", "), f"{dice:.4f}") for name, dice in results]
    return _table(("model, best first", "Dice"), lines)


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table whose cells that start with a digit stand on the right."""
    text = "<table><tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in headings) + "</tr>"
    for line in lines:
        text += '<tr class="mean">' if line[0] == "mean" else "<tr>"
        for cell in line:
            text += f'<td class="number">{cell}</td>' if cell[:1].isdigit() else f"<td>{html.escape(cell)}</td>"
        text += "</tr>"
    return text + "</table>"


def _image(png: bytes, description: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<p><img alt="{html.escape(description)}" src="data:image/png;base64,{data}"></p>'
