"""The part of a report about one case: what is wrong in it, shown where it is."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from nnunet_topo.evaluation.report_html import significant
from nnunet_topo.evaluation.report_scores import Row
from nnunet_topo.evaluation.report_slices import (
    ADDED,
    IGNORED,
    MISSED,
    PALE_ADDED,
    PALE_MISSED,
    RIGHT,
    image_panel,
    label_panel,
    prediction_panel,
    whole_slice,
)
from nnunet_topo.evaluation.report_surfaces import close_up, overview
from nnunet_topo.evaluation.report_views import CaseVolumes, View, chosen_views
from nnunet_topo.metrics.error_regions import KINDS, ErrorRegion, Kind
from nnunet_topo.metrics.registry import METRICS

NAMES: dict[Kind, tuple[str, str]] = {
    "missing": ("missing component", "missing components"),
    "extra": ("extra component", "extra components"),
    "break": ("break", "breaks"),
    "bridge": ("bridge", "bridges"),
    "hole": ("hole", "holes"),
    "filled": ("filled hole", "filled holes"),
    "cavity": ("false cavity", "false cavities"),
}
IN_TITLE = ("leaderboard", "betti_matching_error", "dice", "cldice", "surface_dice")


def legend() -> str:
    """What the colours mean, in words."""
    colors = (
        (RIGHT, "right: labelled and predicted (in the label's picture: labelled)"),
        (ADDED, "added: predicted, but not labelled"),
        (MISSED, "missed: labelled, but not predicted"),
        (PALE_ADDED, "added or missed along a boundary, without effect on what is joined or whole"),
        (IGNORED, "not labelled by anyone: left out of every score"),
    )
    items = "".join(f'<li><i style="background:{color}"></i>{html.escape(text)}</li>' for color, text in colors)
    items = items.replace(
        f'background:{PALE_ADDED}"', f'background:linear-gradient(90deg,{PALE_ADDED} 50%,{PALE_MISSED} 50%)"'
    )
    kinds = "".join(f"<li><b>{NAMES[kind][0]}</b>: {html.escape(KINDS[kind])}</li>" for kind in NAMES)
    return (
        f'<ul class="swatches">{items}</ul>'
        f"<details><summary>What is a hole, what is a bridge?</summary><ul>{kinds}</ul>"
        "<p>An error counts only where no shift of a boundary mends it: the label is deformed towards the prediction "
        "voxel by voxel as long as nothing is torn, joined or filled, and what remains is shown here.</p></details>"
    )


def case_section(number: int, row: Row, volumes: CaseVolumes, shown: int, other: CaseVolumes | None = None) -> str:
    """Everything about one case.

    Args:
        number: of the case in the report, from 1.
        row: its scores.
        volumes: its data and errors.
        shown: how many errors are shown in close-up.
        other: the same case as another run predicted it.
    """
    scores = ", ".join(
        f"{METRICS[name].key} {significant(row.values[name])}" for name in IN_TITLE if name in row.values
    )
    title = " · ".join(part for part in (row.case, row.predictions.name, volumes.label) if part)
    head = (
        f'<article class="case" id="case-{number}"><h3>{number}. {html.escape(title)}</h3><p>{html.escape(scores)}</p>'
    )
    if not volumes.regions:
        return (
            head
            + "<p>No error of topology: every structure is there, whole, and apart from its neighbours.</p></article>"
        )
    views = chosen_views(volumes, shown)
    note = "The close-ups below show some that are plain to see, numbered in all pictures."
    words = f"<p><b>{_counted(volumes.regions)}.</b> {note}</p>"
    if other is not None:
        words += f"<p>The other run: {_counted(other.regions)}.</p>"
    panels = (
        [] if volumes.is_flat else [("The whole prediction in 3-D, every error in colour", overview(volumes, views))]
    )
    where = _slice_name(volumes, views[0])
    if volumes.image is not None:
        panels.append((f"Image, {where}", whole_slice(volumes, views, image=True)))
    panels.append((f"Prediction, {where}", whole_slice(volumes, views, image=False)))
    return (
        f'{head}{words}<div class="panels wide">{_figures(panels)}</div>'
        + "".join(_error(index, volumes, view, other) for index, view in enumerate(views, start=1))
        + "</article>"
    )


def _error(number: int, volumes: CaseVolumes, view: View, other: CaseVolumes | None) -> str:
    panels = [] if volumes.image is None else [("Image", image_panel(volumes, view))]
    panels += [("Label: how it should be", label_panel(volumes, view)), ("Prediction", prediction_panel(volumes, view))]
    if not volumes.is_flat:
        panels.append(("Prediction in 3-D", close_up(volumes, view)))
    if other is not None:
        panels.append(("The other run, same place", prediction_panel(replace(other, image=None), view)))
    heading, text = _sentences(view.region)
    size = len(view.region.voxels)
    place = ", ".join(f"{axis} {index}" for axis, index in zip("zyx", view.region.centre, strict=True))
    text += f" At {place}; shown: {_slice_name(volumes, view)}; {size} voxel{'s' * (size > 1)} at its thinnest part."
    if view.region.kind in ("missing", "extra"):
        text = text.replace(" at its thinnest part", "")
    return (
        f'<div class="error"><h4><span class="badge">{number}</span>{heading}</h4><p>{html.escape(text)}</p>'
        f'<div class="panels">{_figures(panels)}</div></div>'
    )


def _figures(panels: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<figure><figcaption>{html.escape(text)}</figcaption>{svg}</figure>" for text, svg in panels)


def _slice_name(volumes: CaseVolumes, view: View) -> str:
    return "the slice" if volumes.truth.shape[0] == 1 else f"slice {'zyx'[view.axis]} = {view.index}"


def _counted(regions: Sequence[ErrorRegion]) -> str:
    counts = Counter(region.kind for region in regions)
    found = [f"{counts[kind]} {NAMES[kind][counts[kind] > 1]}" for kind in NAMES if counts[kind]]
    return ", ".join(found) or "no error of topology"


def _sentences(region: ErrorRegion) -> tuple[str, str]:
    """Heading and explanation for someone who has never seen such data."""
    components, loops, _ = region.betti_change
    if region.kind == "bridge":
        what = f"{region.components} separate structures" if region.components > 1 else "two parts of one structure"
        joined = "joins" if components < 0 else "makes a loop, joining"
        return "A bridge", f"The prediction {joined} {what} that the label keeps apart here (orange)."
    sentences = {
        "hole": f"The prediction leaves {'holes' if loops > 1 else 'a hole'} where the label is whole (blue).",
        "break": "The prediction is interrupted where the label goes on (blue).",
        "missing": "The prediction leaves out this structure altogether (blue).",
        "extra": "The prediction has a structure where nothing is labelled (orange).",
        "filled": "The prediction fills an opening that the label has (orange).",
        "cavity": "The prediction encloses an empty pocket that the label does not have.",
    }
    return f"A {NAMES[region.kind][0]}" if region.kind != "extra" else "An extra component", sentences[region.kind]
