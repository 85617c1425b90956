from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from PIL import Image

from nnunet_topo.errors import DataError
from nnunet_topo.training import figure as figure_module
from nnunet_topo.training.figure import draw_progress

TERMS = ("dice", "ce", "cldice", "variance", "boundary", "focal", "entropy", "connectivity")
SCALES = dict(zip(TERMS, (0.9, 0.7, 0.8, 1.2, 12.0, 0.02, 300.0, 0.004), strict=True))
Lines = list[dict[str, Any]]


def synthetic_journal(epochs: int, terms: int, phases: int = 1, first: int = 0) -> tuple[Lines, list[tuple[int, str]]]:
    """A plausible run: terms join phase by phase, values decay with noise."""
    rng = np.random.default_rng(epochs + terms)
    starts = [index * epochs // phases for index in range(phases)]
    lines: Lines = []
    for epoch in range(first, epochs):
        phase = sum(epoch >= start for start in starts) - 1
        active = TERMS[: max(1, terms * (phase + 1) // phases)]
        weights = {name: 1 / len(active) if name in active else 0.0 for name in TERMS[:terms]}
        parts = {}
        for part, offset in (("train", 0.3), ("validation", 0.4)):
            decay = math.exp(-3 * epoch / epochs) + offset
            values = {name: SCALES[name] * (decay + 0.03 * rng.standard_normal()) for name in active}
            weighted = {name: weights[name] * value for name, value in values.items()}
            parts[part] = {"loss": sum(weighted.values()), "terms": values, "weighted": weighted}
        dice = {"pseudo_dice": [0.5, 0.7], "mean_pseudo_dice": 0.6, "ema_pseudo_dice": 0.55}
        parts["validation"] |= {**dice, "foreground_predicted": 0.3 * decay, "foreground_labelled": 0.06}
        lr = 0.01 * (1 - epoch / epochs) ** 0.9
        measured = {"reference_loss": decay, "topology_error": 0.9 * decay / 1.4, "gradient_norm": 3 * decay}
        line = {"kind": "epoch", "epoch": epoch, "phase": phase, "lr": lr, "weights": weights, **parts}
        if epoch % 5 == 0 and terms > 1:
            pairs = itertools.combinations(TERMS[:terms], 2)
            line["conflict"] = {f"{a}|{b}": math.cos(epoch / epochs + i) for i, (a, b) in enumerate(pairs)}
        lines.append({**line, "monitors": measured})
        if epoch in starts[1:]:
            lines.append({"kind": "event", "epoch": epoch, "what": "phase", "why": "", "from": phase - 1, "to": phase})
    labels = [" + ".join(TERMS[: max(1, terms * (index + 1) // phases)]) for index in range(phases)]
    return lines, list(zip(starts, labels, strict=True))


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give back the figure object that draw_progress keeps to itself, not rendered."""
    figures: list[Figure] = []

    class Remembered(Figure):
        def savefig(self, *args: Any, **kwargs: Any) -> None:
            figures.append(self)

    monkeypatch.setattr(figure_module, "Figure", Remembered)

    def draw(lines: Lines, phases: Any = (), epochs_planned: int = 1, recipe_name: str = "progressive") -> Figure:
        path = tmp_path / "progress_topo.png"
        draw_progress(lines, path, recipe_name=recipe_name, phases=phases, epochs_planned=epochs_planned)
        return figures[-1]

    return draw


def panel(figure: Figure, title: str) -> Any:
    """The axes whose first note after phase numbers and axis name is that title."""
    (axes,) = [axes for axes in figure.axes if any(text.get_text() == title for text in axes.texts)]
    return axes


def curve(axes: Any, label: str) -> tuple[np.ndarray, np.ndarray]:
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata(), dtype=float)


def is_vertical(line: Any) -> bool:
    """Whether a line marks a reaction: a dashed one at a single epoch."""
    return len(set(line.get_xdata())) == 1 and line.get_linestyle() == "--"


@pytest.mark.parametrize(("epochs", "terms", "phases"), [(1, 1, 1), (2, 8, 2), (50, 1, 1), (50, 8, 3), (1000, 8, 3)])
def test_nothing_overlaps_and_nothing_leaves_the_picture(drawn: Any, epochs: int, terms: int, phases: int) -> None:
    figure = drawn(*synthetic_journal(epochs, terms, phases), epochs_planned=epochs)
    figure.canvas.draw()
    whole = figure.bbox
    assert whole.width <= 1600
    legends = [child for axes in figure.axes for child in axes.get_children() if isinstance(child, Legend)]
    legends += figure.legends
    assert len(legends) == (6 if terms > 1 else 5)  # with a conflict panel
    insides = [axes.get_window_extent() for axes in figure.axes]
    # Phase numbers, of 7.5 points, lie over the panels where a legend may come close: they are no headings.
    headings = [text for axes in figure.axes[1:] for text in axes.texts if text.get_fontsize() > 7.5]
    boxes = [artist.get_window_extent() for artist in [*legends, *headings, *figure.texts]]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= whole.width + 1
        assert box.y1 <= whole.height
        assert not any(box.overlaps(inside) for inside in insides)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


@pytest.mark.parametrize("epochs", [1, 2, 50])
def test_the_file_is_a_png_of_the_promised_width(tmp_path: Path, epochs: int) -> None:
    lines, phases = synthetic_journal(epochs, 3, 1)
    path = tmp_path / "progress_topo.png"
    draw_progress(lines, path, recipe_name="v3", phases=phases, epochs_planned=epochs)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width == 1400
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    vermillion = np.array([0xD5, 0x5E, 0x00])
    assert (pixels == vermillion).all(axis=1).sum() > 50
    assert [file.name for file in tmp_path.iterdir()] == ["progress_topo.png"]


def test_curves_hold_the_values_of_the_journal(drawn: Any) -> None:
    lines, phases = synthetic_journal(12, 3, 3)
    figure = drawn(lines, phases, 40)
    epochs = [line for line in lines if line["kind"] == "epoch"]
    for part in ("train", "validation"):
        x, y = curve(panel(figure, "Loss"), part)
        assert x.tolist() == list(range(12))
        assert y == pytest.approx([line[part]["loss"] for line in epochs])
        for name in TERMS[:3]:
            expected = [line[part]["terms"].get(name, np.nan) for line in epochs]
            assert curve(panel(figure, name), part)[1] == pytest.approx(expected, nan_ok=True)
            expected = [line[part]["weighted"].get(name, np.nan) for line in epochs]
            assert curve(panel(figure, f"Terms weighted, {part}"), name)[1] == pytest.approx(expected, nan_ok=True)
    for name in TERMS[:3]:
        assert curve(panel(figure, "Weights"), name)[1] == pytest.approx([line["weights"][name] for line in epochs])
    assert curve(panel(figure, "Learning rate"), "learning rate")[1] == pytest.approx([line["lr"] for line in epochs])
    for side in ("predicted", "labelled"):
        expected = [line["validation"][f"foreground_{side}"] for line in epochs]
        assert curve(panel(figure, "Foreground"), side)[1] == pytest.approx(expected)
    assert curve(panel(figure, "Pseudo Dice"), "moving average")[1] == pytest.approx([0.55] * 12)


def test_null_and_missing_epochs_are_gaps_and_single_values_stay_visible(drawn: Any) -> None:
    lines, phases = synthetic_journal(60, 1)
    for epoch in (10, 12):
        lines[epoch]["train"]["loss"] = None
    del lines[20:30]
    figure = drawn(lines, phases, 60)
    axes = panel(figure, "Loss")
    x, y = curve(axes, "train")
    assert x.tolist() == list(range(60))
    assert np.flatnonzero(np.isnan(y)).tolist() == [10, 12, *range(20, 30)]
    assert [11] in [np.asarray(line.get_xdata()).tolist() for line in axes.lines if line.get_marker() == "o"]


def test_the_later_of_two_lines_of_an_epoch_counts_and_the_order_does_not(drawn: Any) -> None:
    lines, phases = synthetic_journal(4, 1)
    figure = drawn([*reversed(lines), {**lines[1], "lr": 7.0}], phases, 4)
    assert curve(panel(figure, "Learning rate"), "learning rate")[1][1] == 7.0


def test_phases_are_shaded_labelled_and_numbered(drawn: Any) -> None:
    lines, _ = synthetic_journal(100, 3, 3)
    figure = drawn(lines, [(0, "1 dice"), (31, "0.8 dice + 0.2 focal"), (61, "a third")], 100)
    texts = [text.get_text() for text in figure.texts]
    assert "progressive: 100 of 100 epochs" in texts
    assert "phase 1, from epoch 31:  0.8 dice + 0.2 focal" in texts
    for axes in figure.axes:
        shaded = [patch.get_bbox().intervalx.tolist() for patch in axes.patches]
        assert shaded == [[30.5, 60.5]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["phase 0", "phase 1", "phase 2"]


def test_events_are_counted_by_kind_and_marked_at_their_epochs(drawn: Any) -> None:
    lines, phases = synthetic_journal(50, 1)
    lines += [{"kind": "event", "epoch": epoch, "what": "rollback", "why": "", "from": 0, "to": 1} for epoch in (7, 9)]
    lines += [{"kind": "event", "epoch": 3, "what": "noise", "why": "", "from": 0, "to": 1}]
    figure = drawn(lines, phases, 50)
    timeline, loss = figure.axes[0], panel(figure, "Loss")
    assert [label.get_text() for label in timeline.get_yticklabels()] == ["finished", "rollback (2)", "noise (1)"]
    marks = [np.asarray(line.get_xdata()).tolist() for line in timeline.lines if line.get_marker() == "|"]
    assert marks == [[7, 9], [3]]
    assert [np.asarray(line.get_xdata()).tolist() for line in loss.lines if line.get_marker() == "|"] == marks
    colors = [line.get_color() for line in timeline.lines if line.get_marker() == "|"]
    assert len(set(colors)) == 2
    for title in ("Loss", "Pseudo Dice", "Learning rate", "Reference loss", "Topology error", "Gradient norm"):
        found = {(line.get_xdata()[0], line.get_color()) for line in panel(figure, title).lines if is_vertical(line)}
        assert found == {(7, colors[0]), (9, colors[0]), (3, colors[1])}
    assert not any(is_vertical(line) for line in panel(figure, "Weights").lines)


def test_events_that_happen_all_the_time_are_no_lines(drawn: Any) -> None:
    lines, phases = synthetic_journal(60, 1)
    lines += [{"kind": "event", "epoch": epoch, "what": "noise", "why": "", "from": 0, "to": 1} for epoch in range(30)]
    figure = drawn(lines, phases, 60)
    assert not any(is_vertical(line) for line in panel(figure, "Loss").lines)


def test_what_the_controls_judge_by(drawn: Any) -> None:
    lines, phases = synthetic_journal(20, 3)
    for line in lines:
        line["lr_multiplier"] = 2.0 if 5 <= line["epoch"] < 9 else 1.0
    figure = drawn(lines, phases, 20)
    for title, name in (("Reference loss", "reference_loss"), ("Topology error", "topology_error")):
        expected = [line["monitors"][name] for line in lines]
        assert curve(panel(figure, title), title.lower())[1] == pytest.approx(expected)
    schedule = [line["lr"] / line["lr_multiplier"] for line in lines]
    assert curve(panel(figure, "Learning rate"), "schedule alone")[1] == pytest.approx(schedule)
    conflict = panel(figure, "Conflict")
    entries = {text.get_text().strip() for legend in figure.legends for text in legend.get_texts()}
    assert {entry for entry in entries if entry.startswith("conflict of")} >= {"conflict of dice, ce"}
    measured = [line for line in lines if "conflict" in line]
    worst = min(lines[0]["conflict"], key=lambda pair: sum(line["conflict"][pair] for line in measured))
    x, y = curve(conflict, worst)
    assert x.tolist() == [line["epoch"] for line in measured]
    assert y == pytest.approx([line["conflict"][worst] for line in measured])


def test_a_journal_from_before_the_monitors(drawn: Any) -> None:
    lines, phases = synthetic_journal(8, 2)
    for line in lines:
        line.pop("monitors", None), line.pop("conflict", None)
    titles = {text.get_text() for axes in drawn(lines, phases, 8).axes for text in axes.texts}
    assert "Learning rate" in titles
    assert not titles & {"Reference loss", "Topology error", "Gradient norm", "Conflict"}


@pytest.mark.parametrize(("last", "scale"), [(0.009, "linear"), (0.0009, "log"), (0.0, "linear")])
def test_the_learning_rate_is_logarithmic_when_it_spans_decades(drawn: Any, last: float, scale: str) -> None:
    lines, phases = synthetic_journal(20, 1)
    for line, lr in zip(lines, np.linspace(0.01, last, 20), strict=True):
        line["lr"] = float(lr)
    assert panel(drawn(lines, phases, 20), "Learning rate").get_yscale() == scale


def test_an_exploded_epoch_is_cut_off_and_said(drawn: Any) -> None:
    lines, phases = synthetic_journal(200, 1)
    lines[150]["train"]["loss"] = 1e6
    axes = panel(drawn(lines, phases, 200), "Loss")
    assert axes.get_ylim()[1] < 3
    assert "1 value beyond the axis, up to 1e+06" in [text.get_text() for text in axes.texts]


def test_a_run_whose_every_value_is_missing_is_drawn(drawn: Any) -> None:
    figure = drawn([{"kind": "epoch", "epoch": 0, "lr": None, "train": {"loss": None}, "validation": None}])
    assert "no values yet" in [text.get_text() for text in panel(figure, "Loss").texts]


def test_names_with_dollars_underscores_and_great_length_are_text(drawn: Any) -> None:
    lines, _ = synthetic_journal(3, 1)
    name = "_my$loss^{" + "x" * 60
    for line in lines:
        line["weights"] = {name: 1.0}
        for part in ("train", "validation"):
            line[part]["terms"] = line[part]["weighted"] = {name: 1.0}
    figure = drawn(lines, [(0, "$" * 500)], 3, recipe_name="a_$b$")
    assert any(text.get_text().startswith(" _my$loss^{") for legend in figure.legends for text in legend.get_texts())
    assert all(text.get_window_extent().x1 <= figure.bbox.width for text in figure.texts)


def test_no_epoch_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    event = {"kind": "event", "epoch": 0, "what": "phase", "why": "", "from": 0, "to": 1}
    with pytest.raises(DataError, match="at least one line of kind 'epoch'"):
        draw_progress([event], tmp_path / "a.png", recipe_name="v1", epochs_planned=1)
    assert list(tmp_path.iterdir()) == []


def test_neither_is_touched_by_global_settings_nor_touches_them(tmp_path: Path) -> None:
    import seaborn
    from matplotlib import pyplot

    lines, phases = synthetic_journal(5, 2)
    plain, after = tmp_path / "plain.png", tmp_path / "after.png"
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        draw_progress(lines, plain, recipe_name="v1", phases=phases, epochs_planned=5)
        seaborn.set(font_scale=2.5)  # what nnU-Net does before it draws progress.png
        settings = dict(matplotlib.rcParams)
        draw_progress(lines, after, recipe_name="v1", phases=phases, epochs_planned=5)
        assert dict(matplotlib.rcParams) == settings
    assert after.read_bytes() == plain.read_bytes()
    assert pyplot.get_fignums() == []
