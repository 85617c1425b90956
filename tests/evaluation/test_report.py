"""The page about a results folder: what is in it, what it needs, and what it does without."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunet_models import DATASET, FOLDS, shifted, with_holes

from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.evaluation import report_surfaces
from nnunet_topo.evaluation.evaluate import evaluate_folders, write_evaluation
from nnunet_topo.evaluation.report import write_report
from nnunet_topo.recipe import load_recipe, recipe_to_yaml
from nnunet_topo.training.journal import Journal

VOID = {"meta", "path", "circle", "rect", "image", "text", "polygon", "br", "line"}


class Page(HTMLParser):
    """Everything that a test asks of a page; raises on tags that do not close."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in VOID or tag == "text":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag):
        if tag not in VOID or tag == "text":
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def section(self, name):
        found = re.search(rf'<section id="{name}">.*?</section>', self.source, re.DOTALL)
        return re.sub(r"<[^>]+>", " ", found[0]) if found else ""


@pytest.fixture(autouse=True)
def small_renderings(monkeypatch):
    monkeypatch.setattr(report_surfaces, "SIDE", 48)


def report(results, tmp_path, **options):
    found = write_report(results, tmp_path / "page.html", progress=False, processes=1, **options)
    assert found.file == tmp_path / "page.html"
    assert found.size_bytes == found.file.stat().st_size
    return found, Page(found.file)


def with_a_stray_piece(labels):
    predicted = labels.copy()
    predicted[-2:, 12:15, 12:15] = 1
    return predicted


def write_journal(fold_folder, epochs=12):
    recipe = load_recipe("progressive").with_overrides([f"epochs={epochs}", "optimizer.lr=0.005"])
    (fold_folder / "topo_recipe.yaml").write_text(recipe_to_yaml(recipe))
    journal = Journal(fold_folder / "topo_journal.jsonl")
    for epoch in range(epochs):
        if epoch == 2:
            journal.append_event(2, "phase", "phase 1 begins", {"dice": 1.0}, {"dice": 0.8, "focal": 0.2})
            journal.append_event(2, "rollback", "worse for 3 epochs <b>", 2, 1)
        terms = {"dice": 0.8 - 0.05 * epoch, "focal": 0.3}
        part = {"loss": 0.9, "terms": terms, "weighted": {"dice": 0.7, "focal": 0.007 + 0.001 * epoch}}
        validation = {**part, "mean_pseudo_dice": 0.05 * epoch, "foreground_predicted": 0.2, "foreground_labelled": 0.1}
        journal.append_epoch(
            {
                "epoch": epoch,
                "lr": 0.01,
                "train": part,
                "validation": validation,
                "monitors": {"topology_error": 5 - epoch, "gradient_norm": None},
                "duration_s": 61.0,
            }
        )


LOG = """
2026-01-02 03:04:05.678901: Epoch 0
2026-01-02 03:04:05.678901: Current learning rate: 0.01
2026-01-02 03:04:05.678901: train_loss 0.123
2026-01-02 03:04:05.678901: val_loss nan
2026-01-02 03:04:05.678901: Pseudo dice [np.float32(0.25), np.float64(nan), np.float32(0.75)]
2026-01-02 03:04:05.678901: Epoch time: 2.5 s
2026-01-02 03:04:05.678901: Epoch 1
2026-01-02 03:04:05.678901: Current learning rate: 0.005
"""


@pytest.fixture
def trained(experiment):
    """A model with holes, trained by a recipe, its labels and images."""
    made = experiment()
    made.write_truth()
    folder = made.train("nnUNetTrainerTopo", with_holes)
    for fold in FOLDS:
        write_journal(folder / f"fold_{fold}")
        (folder / f"fold_{fold}" / "debug.json").write_text(json.dumps({"device": "cuda:0", "torch_version": "2.7"}))
    images = made.root / "nnUNet_raw" / DATASET / "imagesTr"
    images.mkdir(parents=True)
    for case, labels in made.truth.items():
        image = sitk.GetImageFromArray(labels.astype(np.float32) + 0.1)
        image.SetSpacing((0.5, 1.0, 3.0))
        sitk.WriteImage(image, images / f"{case}_0000.nii.gz")
    return made, folder


def test_a_whole_report(trained, tmp_path):
    made, folder = trained
    other = made.train("nnUNetTrainer", with_a_stray_piece)
    (other / "fold_0" / "training_log_2026_1_2_03_04_05.txt").write_text(LOG)
    found, page = report(folder, tmp_path, against=other, cases=2)

    # Nothing is loaded from anywhere.
    links = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert links
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in links)
    assert not re.search(r"https?:|@import|url\(|<link|<iframe|//cdn", page.source)
    assert found.size_bytes < 5e6
    assert 'name="viewport"' in page.source

    # Every picture says what it shows.
    pictures = [value for _, name, value in page.attributes if name == "aria-label"]
    assert page.source.count('role="img"') == len(pictures) > 20
    assert any("hole marked" in words for words in pictures)

    assert "12 holes" in page.section("errors")
    assert "A hole" in page.section("errors")
    assert "The other run: 1 extra component." in page.section("errors")
    assert re.search(r"Image, slice [zyx] = \d+", page.section("errors"))
    assert page.source.count('<article class="case"') == 2

    comparison = page.section("comparison")
    assert "4 cases paired" in comparison
    assert re.search(r"betti 1 error ↓\s+12\s+0\s+\+12", comparison)

    run = page.section("run")
    for words in (DATASET, "sheet (1)", "nnUNetTrainerTopo", "cuda:0", "torch 2.7", "12 of 12", "12 min 12 s"):
        assert words in run
    assert re.search(r"optimizer\.lr\s+0\.01\s+0\.005", run)
    assert re.search(r"epochs\s+1000\s+12", run)

    training = page.section("training")
    assert "worse for 3 epochs &lt;b&gt;" in page.source
    assert "rollback" in training
    assert "Which term pulls" in training
    assert "focal: less than 2 %" in training
    assert "Topology error" in training
    assert "Gradient norm" not in training
    # One mark a chart; the phase is shaded instead.
    assert page.source.count('class="event"') == len(FOLDS) * 8

    values = [value for value, _ in found.figures]
    assert values[0] == "4"
    assert "0 / 12 / 0" in values
    assert any("training log" in note or "nnU-Net's log" in note for note in found.notes)


def test_the_worst_cases_come_first(trained, tmp_path):
    made, folder = trained
    made.truth["c2"][:] = 0
    made.truth["c2"][1, 2, 3] = 1
    made.write_truth()
    _, page = report(folder, tmp_path, cases=1)
    table = page.section("cases")
    # 12 holes in each: the one that also overlaps least is the worst.
    assert next(word for word in table.split() if re.fullmatch(r"c\d", word)) == "c2"
    assert "1. c2" in page.section("errors")
    assert 'class="sortable"' in page.source


def test_scores_that_lie_there_are_taken_as_they_are(trained, tmp_path):
    made, folder = trained
    for fold in FOLDS:
        validation = folder / f"fold_{fold}" / "validation"
        evaluation = evaluate_folders(
            made.labels, validation, dataset_json=made.dataset, metrics=["dice", "betti_1_error"], processes=1,
            chill=True, progress=False,
        )  # fmt: skip
        evaluation.summary["metric_per_case"][0]["metrics"]["1"]["leaderboard"] = 0.123 + fold / 10
        write_evaluation(evaluation, validation / "summary_topo.json")
    found, page = report(folder, tmp_path, cases=0)
    assert found.notes == []
    assert "0.123" in page.section("cases")
    assert "surface dice" not in page.section("cases")
    assert page.section("errors") == ""


def test_a_fold_alone(trained, tmp_path):
    _, folder = trained
    _, page = report(folder / "fold_1", tmp_path, cases=0)
    assert "c2" in page.section("cases")
    assert "c0" not in page.section("cases")


def test_a_stock_run_is_read_from_its_log(trained, tmp_path):
    made, _ = trained
    folder = made.train("nnUNetTrainer", shifted)
    (folder / "fold_0" / "training_log_2026_1_2_03_04_05.txt").write_text(LOG)
    (folder / "fold_0" / "debug.json").write_text(json.dumps({"num_epochs": "1000"}))
    found, page = report(folder, tmp_path, cases=1)
    assert "1 of 1000" in page.section("run")
    assert "as with nnU-Net's own trainers" in page.section("run")
    assert "mean of the classes ends at 0.5" in page.source
    assert "Loss" in page.section("training")
    assert any(note.startswith("fold_1: no topo_journal.jsonl") and "no curves" in note for note in found.notes)
    assert "No error of topology" in page.section("errors")


def test_without_labels_there_are_nnunets_scores_and_no_pictures(trained, tmp_path, monkeypatch):
    made, folder = trained
    for file in made.labels.iterdir():
        file.unlink()
    made.labels.rmdir()
    case = {"prediction_file": "/gone/c0.nii.gz", "reference_file": "/gone/gt/c0.nii.gz"}
    scores = {"1": {"Dice": 0.75, "TP": 2, "FP": 1, "FN": 1, "TN": 6, "n_pred": 6, "n_ref": 3}}
    content = {"metric_per_case": [{**case, "metrics": scores}]}
    (folder / "fold_0" / "validation" / "summary.json").write_text(json.dumps(content))
    found, page = report(folder, tmp_path)
    assert "0.750" in page.section("cases")
    assert page.section("errors") == ""
    assert any("no pictures" in note for note in found.notes)
    assert any(note == "fold_1: no scores and no labels were found" for note in found.notes)
    assert "fills too much: it predicts 2.00 times" in page.text


def test_a_fold_that_was_not_validated(trained, tmp_path):
    _, folder = trained
    for fold in FOLDS:
        for file in (folder / f"fold_{fold}" / "validation").iterdir():
            file.unlink()
        (folder / f"fold_{fold}" / "validation").rmdir()
    found, page = report(folder, tmp_path)
    assert "No scores" in page.section("cases")
    assert any("was not validated" in note for note in found.notes)
    assert "Loss" in page.section("training")


def test_predictions_with_their_labels(trained, tmp_path):
    made, folder = trained
    predictions = folder / "fold_0" / "validation"
    (predictions / "dataset.json").write_text(json.dumps(made.dataset))
    found, page = report(predictions, tmp_path, ground_truth=made.labels, cases=1)
    assert "c1" in page.section("cases")
    assert page.section("training") == ""
    assert "12 holes" in page.section("errors")
    assert any("computed for this report" in note for note in found.notes)


@pytest.mark.parametrize(
    "labels", [{"background": 0, "sheet": 1, "stray": 2}, {"background": 0, "all": [1, 2], "stray": [2]}]
)
def test_several_labels_and_regions(experiment, tmp_path, labels):
    made = experiment(labels)
    for truth in made.truth.values():
        truth[0:2, 3:6, 3:6] = 2
    made.write_truth()
    folder = made.train("nnUNetTrainerTopo", lambda truth: np.where(truth == 2, 0, truth))
    _, page = report(folder, tmp_path, cases=1)
    assert "stray" in page.section("cases")
    assert "1 missing component" in page.section("errors")


def test_a_damaged_case_costs_only_its_pictures(trained, tmp_path):
    made, folder = trained
    report(folder, tmp_path, cases=0)
    for fold in FOLDS:
        validation = folder / f"fold_{fold}" / "validation"
        evaluation = evaluate_folders(made.labels, validation, dataset_json=made.dataset, processes=1, chill=True)
        write_evaluation(evaluation, validation / "summary_topo.json")
    (folder / "fold_0" / "validation" / "c0.nii.gz").write_bytes(b"not an image")
    found, page = report(folder, tmp_path, cases=4)
    assert any(note.startswith("no pictures of c0") for note in found.notes)
    assert page.source.count('<article class="case"') == 3


def test_slices_are_as_wide_as_the_tissue_and_not_as_the_voxels(trained, tmp_path):
    _, folder = trained
    _, page = report(folder, tmp_path, cases=1)
    # The whole slice across x: 20 voxels of 3 mm by 18 of 1 mm.
    across = re.search(
        r'viewBox="0 0 ([\d.]+) ([\d.]+)" role="img" aria-label="whole slice of the image[^"]*x =', page.source
    )
    assert across
    assert float(across[1]) / float(across[2]) == pytest.approx(18 / 60, rel=0.01)


def test_what_is_not_there_is_said(trained, tmp_path):
    made, folder = trained
    with pytest.raises(DataError, match="no such folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"fold_\*.*nnUNetTrainerTopo__nnUNetPlans__3d_fullres"):
        write_report(made.results)
    with pytest.raises(DataError, match="give --ground-truth"):
        write_report(made.labels)
    with pytest.raises(ConfigError, match="cases: expected at least 0"):
        write_report(folder, cases=-1)
    with pytest.raises(ConfigError, match="ground truth"):
        write_report(folder, ground_truth=tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="-o: expected a file that can be written"):
        write_report(folder, tmp_path / "file" / "page.html", cases=0, processes=1, progress=False)


def test_a_trainers_name_may_hold_two_underscores(trained, tmp_path):
    _, folder = trained
    renamed = folder.rename(folder.with_name("My__Trainer__nnUNetPlans__3d_fullres"))
    _, page = report(renamed, tmp_path, cases=0)
    assert re.search(r"trainer\s+My__Trainer\s", page.section("run"))
    assert re.search(r"plans, configuration\s+nnUNetPlans, 3d_fullres", page.section("run"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plans.json", {"configurations": [1]}),
        ("plans.json", {"configurations": {"3d_fullres": "x"}}),
        ("dataset.json", {"labels": {"background": 0, "sheet": 1}, "file_ending": ".nii.gz", "channel_names": ["CT"]}),
        ("dataset.json", []),
    ],
)
def test_a_damaged_description_is_named(trained, tmp_path, name, content):
    _, folder = trained
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(DataError, match=str(folder / name)):
        report(folder, tmp_path, cases=0)


@pytest.mark.parametrize("content", ["[]", "{", "null", *(f'{{"metric_per_case": {cases}}}' for cases in (5, [5], []))])
def test_a_damaged_hint_at_the_labels_is_no_matter(trained, tmp_path, content):
    _, folder = trained
    for fold in FOLDS:
        (folder / f"fold_{fold}" / "validation" / "summary.json").write_text(content)
    found, _ = report(folder, tmp_path, cases=0)
    assert found.figures[0] == ("4", "validated cases")


def test_two_dimensions(experiment, tmp_path):
    made = experiment()
    for case in made.truth:
        made.truth[case] = made.truth[case][6:7].repeat(1, axis=0)
        made.truth[case][0, 3:-3, 4:-4] = 1
    made.write_truth()
    folder = made.train("nnUNetTrainerTopo", with_holes, configuration="2d")
    _, page = report(folder, tmp_path, cases=1)
    assert "holes" in page.section("errors")
    assert "3-D" not in page.section("errors")
