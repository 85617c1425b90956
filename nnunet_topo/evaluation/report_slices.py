"""Slices as inline SVG: one small PNG with a pixel a voxel, and what points at an error drawn over it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import matplotlib.image
import numpy as np
from numpy.typing import NDArray

from nnunet_topo.evaluation.report_views import Box, CaseVolumes, View

# Okabe and Ito's blue and vermillion, told apart by colour-blind people too; pale where no topology hangs on it.
RIGHT, MISSED, ADDED = "#8d9aa5", "#0072B2", "#D55E00"
PALE_MISSED, PALE_ADDED = "#b5d3e6", "#f5cdb0"
NOTHING, IGNORED = "#fbfbf9", "#e8e0c4"
MAX_SIDE = 400  # pixels of a picture of a whole slice
WIDE = 100.0  # of every drawing, in its own units
CRISP = ' style="image-rendering:pixelated"'  # voxels stay squares


def image_panel(volumes: CaseVolumes, view: View) -> str:
    """The grey image in a view's slice."""
    return _drawing(_grey(volumes, view, view.box), volumes, view, "the image")


def label_panel(volumes: CaseVolumes, view: View) -> str:
    """The label in a view's slice."""
    truth = _plane(volumes.truth, view.box, view)
    layers = ((NOTHING, np.ones_like(truth)), (RIGHT, truth), (IGNORED, _plane(volumes.ignore, view.box, view)))
    return _drawing(_painted(*layers), volumes, view, "the label")


def prediction_panel(volumes: CaseVolumes, view: View) -> str:
    """The prediction in a view's slice, what is wrong in colour and strongly where the topology hangs on it."""
    return _drawing(_errors(volumes, [view], view.box, view), volumes, view, "the prediction")


def whole_slice(volumes: CaseVolumes, views: Sequence[View], *, image: bool) -> str:
    """The whole slice of the first view, the image or the prediction, with the errors in it numbered."""
    first = views[0]
    size = volumes.truth.shape
    box = (slice(0, size[0]), slice(0, size[1]), slice(0, size[2]))
    pixels = _grey(volumes, first, box) if image else _errors(volumes, views, box, first)
    what = "the image" if image else "the prediction"
    return _drawing(pixels, volumes, first, f"whole slice of {what}", box, views)


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a colour as #rrggbb."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def svg(pixels: NDArray[np.uint8], wide: float, tall: float, marks: str, description: str) -> str:
    """An inline SVG, 100 units along its longer side.

    Args:
        pixels: (rows, columns, 3), stretched to the sides.
        wide: in any unit.
        tall: in the same unit.
        marks: SVG elements in the drawing's units.
        description: for readers who do not see it.
    """
    scale = WIDE / max(wide, tall)
    size = f'width="{scale * wide:.1f}" height="{scale * tall:.1f}"'
    data = base64.b64encode(_png(pixels)).decode()
    large = max(pixels.shape) > 150
    return (
        f'<svg viewBox="0 0 {scale * wide:.1f} {scale * tall:.1f}" role="img" aria-label="{html.escape(description)}">'
        f'<image href="data:image/png;base64,{data}" {size} preserveAspectRatio="none"'
        f"{'' if large else CRISP}/>{marks}</svg>"
    )


def ring(x: float, y: float, radius: float, wide: float, tall: float, number: str = "") -> str:
    """A ring around a place in a drawing, with a number, or with an arrow from the side that has more room."""
    radius = min(max(radius, 4.0), 0.47 * min(wide, tall))
    dx, dy = (-1 if x > wide / 2 else 1), (-1 if y > tall / 2 else 1)
    tip_x, tip_y = x + 0.71 * dx * (radius + 0.6), y + 0.71 * dy * (radius + 0.6)
    drawn = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
    if number:
        drawn += (
            f'<text x="{tip_x + (0.5 if dx > 0 else -4.5):.1f}" y="{tip_y + (5 if dy > 0 else 0):.1f}">{number}</text>'
        )
    else:
        drawn += (
            f'<path d="M{tip_x + 13 * dx:.1f},{tip_y + 13 * dy:.1f} L{tip_x:.1f},{tip_y:.1f} '
            f'M{tip_x + 5.5 * dx:.1f},{tip_y:.1f} L{tip_x:.1f},{tip_y:.1f} L{tip_x:.1f},{tip_y + 5.5 * dy:.1f}"/>'
        )
    return f'<g class="halo">{drawn}</g><g class="mark">{drawn}</g>'


def _grey(volumes: CaseVolumes, view: View, box: Box) -> NDArray[np.uint8]:
    if volumes.image is None:
        raise ValueError("volumes: expected an image. Ask for it only where there is one.")
    grey = _plane(volumes.image, box, view).astype(np.float32)
    low, high = np.percentile(grey, (1, 99))
    values = np.clip((grey - low) / max(float(high - low), 1e-9), 0, 1)
    return np.repeat((255 * values).astype(np.uint8)[..., None], 3, axis=-1)


def _errors(volumes: CaseVolumes, views: Sequence[View], box: Box, view: View) -> NDArray[np.uint8]:
    marked = _plane(_highlights(volumes, views), box, view).astype(np.bool_)
    missed, added = (_plane(mask, box, view).astype(np.bool_) for mask in (volumes.missed, volumes.added))
    return _painted(
        (NOTHING, np.ones_like(marked)),
        (RIGHT, _plane(volumes.prediction, box, view)),
        (PALE_MISSED, missed),
        (PALE_ADDED, added),
        (MISSED, missed & marked),
        (ADDED, added & marked),
        (IGNORED, _plane(volumes.ignore, box, view)),
    )


def _highlights(volumes: CaseVolumes, views: Sequence[View]) -> NDArray[np.bool_]:
    whole = np.zeros(volumes.truth.shape, dtype=np.bool_)
    for view in views:
        whole[view.box] |= view.highlight
    return whole


def _plane(array: NDArray[np.generic], box: Box, view: View) -> NDArray[np.generic]:
    index: list[slice | int] = list(box)
    index[view.axis] = view.index
    return np.asarray(array[tuple(index)])


def _painted(*layers: tuple[str, NDArray[np.generic]]) -> NDArray[np.uint8]:
    """RGB of layers, later ones over earlier ones."""
    pixels = np.zeros((*layers[0][1].shape, 3), dtype=np.uint8)
    for color, mask in layers:
        pixels[mask.astype(np.bool_)] = rgb(color)
    return pixels


def _drawing(
    pixels: NDArray[np.uint8],
    volumes: CaseVolumes,
    view: View,
    what: str,
    box: Box | None = None,
    numbered: Sequence[View] = (),
) -> str:
    """A slice with a ring and an arrow at the view's error, or with numbered rings at all that it cuts."""
    shown = box or view.box
    rows, columns = (axis for axis in range(3) if axis != view.axis)
    wide, tall = ((shown[axis].stop - shown[axis].start) * volumes.spacing_mm[axis] for axis in (columns, rows))
    scale = WIDE / max(wide, tall)
    marks = ""
    for number, marked in enumerate(numbered or [view], start=1):
        place = np.argwhere(_plane(_highlights(volumes, [marked]), shown, view))
        if not len(place):
            continue
        ys, xs = (
            scale * volumes.spacing_mm[axis] * (place[:, index] + 0.5) for index, axis in enumerate((rows, columns))
        )
        x, y = float(xs.min() + xs.max()) / 2, float(ys.min() + ys.max()) / 2
        radius = float(np.hypot(xs - x, ys - y).max()) + 0.03 * WIDE
        marks += ring(x, y, radius, scale * wide, scale * tall, str(number) if numbered else "")
    while max(pixels.shape) > 2 * MAX_SIDE:
        pixels = pixels[::2, ::2]
    kind = "errors" if numbered else view.region.kind
    return svg(pixels, wide, tall, marks, f"{what} of {volumes.case}, {'zyx'[view.axis]} = {view.index}, {kind} marked")


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, pixels, format="png")
    return buffer.getvalue()
