"""From where an error is shown: the slice in which it is one, the box around it, the picture of it."""

from __future__ import annotations

import base64
import io
import re

import matplotlib.image
import numpy as np
import pytest

from nnunet_topo.evaluation import report_surfaces
from nnunet_topo.evaluation.report_slices import ADDED, MISSED, RIGHT, label_panel, prediction_panel, rgb
from nnunet_topo.evaluation.report_surfaces import close_up, overview
from nnunet_topo.evaluation.report_views import CaseVolumes, chosen_views, view_of
from nnunet_topo.metrics.betti import betti_numbers
from nnunet_topo.metrics.error_regions import error_regions


def volumes(prediction, truth, spacing=(1.0, 1.0, 1.0)):
    nothing = np.zeros_like(truth)
    regions = tuple(error_regions(prediction, truth))
    return CaseVolumes("case", "sheet", truth, prediction, nothing, truth.astype(np.float32), spacing, regions)


@pytest.fixture
def sheets():
    truth = np.zeros((40, 44, 48), dtype=np.bool_)
    truth[8:11, 2:42, 2:46] = truth[15:18, 2:42, 2:46] = True
    prediction = truth.copy()
    prediction[8:11, 28:32, 10:14] = False
    prediction[11:15, 9:12, 30:33] = True
    return volumes(prediction, truth)


def pixels(svg):
    data = re.search(r"base64,([^\"]+)", svg)[1]
    return np.round(255 * matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))[..., :3]).astype(int)


def has(picture, color):
    return bool((picture == rgb(color)).all(axis=-1).any())


def test_a_bridge_is_shown_joined_and_a_hole_as_a_gap(sheets):
    views = {region.kind: view_of(sheets, region) for region in sheets.regions}
    assert set(views) == {"bridge", "hole"}
    for kind, view in views.items():
        assert view.axis != 0  # along the sheets there is neither a bridge nor a gap, only a spot
        plane = np.take(sheets.prediction[view.box], view.index - view.box[view.axis].start, view.axis)
        whole = np.take(sheets.truth[view.box], view.index - view.box[view.axis].start, view.axis)
        change = betti_numbers(np.ascontiguousarray(plane))[0] - betti_numbers(np.ascontiguousarray(whole))[0]
        assert change == (-1 if kind == "bridge" else 1)
        low = [side.start for side in view.box]
        assert all(
            start <= voxel < side.stop for start, voxel, side in zip(low, view.region.centre, view.box, strict=True)
        )
        assert view.highlight[tuple((view.region.voxels - low).T)].all()


def test_slices_have_a_pixel_a_voxel_and_errors_in_their_colours(sheets):
    for region in sheets.regions:
        view = view_of(sheets, region)
        shape = [side.stop - side.start for axis, side in enumerate(view.box) if axis != view.axis]
        predicted, label = pixels(prediction_panel(sheets, view)), pixels(label_panel(sheets, view))
        assert predicted.shape == label.shape == (*shape, 3)
        assert has(predicted, ADDED) == region.added
        assert has(predicted, MISSED) != region.added
        assert has(label, RIGHT)
        assert not has(label, ADDED)
        assert not has(label, MISSED)


def test_the_rendering_shows_the_error_from_every_side(sheets, monkeypatch):
    monkeypatch.setattr(report_surfaces, "SIDE", 64)
    for region in sheets.regions:
        picture = pixels(close_up(sheets, view_of(sheets, region)))
        red, green, blue = np.moveaxis(picture, -1, 0)
        orange, blueish = (red > blue + 60) & (red > green + 30), (blue > red + 60)
        assert (orange if region.added else blueish).sum() > 20
        assert (blueish if region.added else orange).sum() == 0
    whole = overview(sheets, [view_of(sheets, region) for region in sheets.regions])
    assert re.findall(r">(\d)</text>", whole)[:2] == ["1", "2"]
    red, _, blue = np.moveaxis(pixels(whole), -1, 0)
    assert (red > blue + 60).any()
    assert (blue > red + 60).any()


def test_renderings_are_not_mirrored(monkeypatch):
    monkeypatch.setattr(report_surfaces, "SIDE", 64)
    content = np.zeros((9, 9, 9), dtype=np.bool_)
    content[4, 4, 4] = True
    camera = report_surfaces._Camera.looking(np.array([0.0, -1.0, 0.0]), content, np.ones(3))
    middle = np.array([4.0, 4.0, 4.0])
    column, row = camera.place(middle)
    # Seen from the front (from -y): x to the right, z up.
    right, up = camera.place(middle + np.array([0, 0, 1])), camera.place(middle + np.array([1, 0, 0]))
    assert right[0] > column + 1
    assert right[1] == pytest.approx(row)
    assert up[1] < row - 1
    assert camera.depth(middle + np.array([0, 1, 0])) > camera.depth(middle)


def test_close_ups_are_as_wide_in_mm_along_every_axis():
    truth = np.zeros((12, 60, 60), dtype=np.bool_)
    truth[3:9, 5:55, 5:55] = True
    prediction = truth.copy()
    prediction[:, 28:31, 28:31] = False
    case = volumes(prediction, truth, (5.0, 1.0, 0.5))
    view = view_of(case, case.regions[0])
    widths = [(side.stop - side.start) * step for side, step in zip(view.box, case.spacing_mm, strict=True)]
    assert widths[0] == pytest.approx(widths[1], abs=5)
    assert widths[1] == pytest.approx(widths[2], abs=1.5)


def test_every_kind_is_shown_before_a_second_of_one(sheets):
    prediction = sheets.prediction.copy()
    prediction[30:33, 4:7, 4:7] = prediction[30:34, 20:24, 4:8] = True
    prediction[36, 40, 40] = True
    case = volumes(prediction, sheets.truth)
    chosen = [(view.region.kind, len(view.region.voxels)) for view in chosen_views(case, 4)]
    assert chosen == [("bridge", 9), ("hole", 16), ("extra", 64), ("extra", 27)]
    assert len(chosen_views(case, 99)) == 5
    assert chosen_views(case, 0) == []


def test_a_plain_bridge_is_shown_rather_than_a_tangle(sheets):
    prediction = sheets.truth.copy()
    prediction[11:15, 9:12, 30:33] = True
    tangle = np.random.default_rng(0).random((4, 20, 12)) < 0.5
    prediction[11:15, 18:38, 6:18] |= tangle
    case = volumes(prediction, sheets.truth)
    largest = max(case.regions, key=lambda region: len(region.voxels))
    shown = chosen_views(case, 1)[0]
    assert shown.region is not largest
    assert shown.plainness == 3
    assert shown.region.betti_change == (-1, 0, 0) or shown.region.betti_change == (0, 1, 0)
