"""`check_dataset` on preprocessed data."""

import json

import blosc2
import numpy as np
import pytest
import tifffile

from nnunet_topo.data.check import check_dataset
from nnunet_topo.data.synthetic import write_synthetic_dataset
from nnunet_topo.errors import ConfigError

CASES = ("scroll_000", "scroll_001", "scroll_002")


@pytest.fixture
def folder(tmp_path):
    """A raw dataset."""
    options = {"kind": "scroll", "cases": 3, "test_cases": 0, "size": 24, "dataset_id": 100, "progress": False}
    return write_synthetic_dataset(tmp_path / "raw", **options)[0]


@pytest.fixture
def data(folder, tmp_path):
    """The folder of its one preprocessed configuration."""
    place = tmp_path / "preprocessed" / folder.name
    data = place / "nnUNetPlans_3d_fullres"
    data.mkdir(parents=True)
    configurations = {
        "3d_fullres": {"data_identifier": "nnUNetPlans_3d_fullres"},
        "3d_small": {"inherits_from": "3d_fullres"},
        "2d": {"data_identifier": "nnUNetPlans_2d"},
    }
    (place / "nnUNetPlans.json").write_text(json.dumps({"configurations": configurations}))
    (place / "dataset.json").write_text((folder / "dataset.json").read_text())
    (place / "splits_final.json").write_text(json.dumps([{"train": CASES[:2], "val": CASES[2:]}]))
    for case in CASES:
        labels = tifffile.imread(folder / "labelsTr" / f"{case}.tif")[None].astype(np.int8)
        blosc2.asarray(np.zeros(labels.shape, np.float32), urlpath=str(data / f"{case}.b2nd"))
        blosc2.asarray(labels, urlpath=str(data / f"{case}_seg.b2nd"))
        (data / f"{case}.pkl").write_bytes(b"")
    return data


def check(data, raw=True, **options):
    root = data.parents[2]
    return check_dataset(
        100, raw=root / "raw" if raw else None, preprocessed=root / "preprocessed", progress=False, **options
    )


def only(report, name):
    """The one finding of a report, which must be an error of that check."""
    assert [(finding.check, finding.severity) for finding in report.findings] == [(name, "error")], report.findings
    return report.findings[0]


def test_healthy_preprocessed_data(data):
    for configurations in (None, ["3d_fullres"], ["3d_small"]):
        report = check(data, configurations=configurations)
        assert report.preprocessed
        assert report.findings == ()


def test_thickness_concerns_the_configurations_that_are_looked_at(data):
    plans = json.loads((data.parent / "nnUNetPlans.json").read_text())
    for name, patch in (("3d_fullres", [24, 24, 24]), ("2d", [24, 24])):
        plans["configurations"][name] |= {"spacing": [9.0, 9.0, 9.0], "patch_size": patch}
    (data.parent / "nnUNetPlans.json").write_text(json.dumps(plans))
    for configurations in (None, ["3d_fullres"]):
        findings = check(data, configurations=configurations).findings
        assert {(finding.check, finding.message.partition(":")[0]) for finding in findings} == {
            ("thickness", "3d_fullres")
        }


def test_preprocessed_data_alone_is_enough(data):
    assert check(data, raw=False).findings == ()


def test_preprocessed_labels_outside_the_description(data):
    path = data / "scroll_001_seg.b2nd"
    path.unlink()
    labels = np.zeros((1, 24, 24, 24), np.int8)
    labels[0, 0, 0, :5] = np.arange(-1, 4)
    blosc2.asarray(labels, urlpath=str(path))
    finding = only(check(data), "undeclared-label")
    assert "scroll_001" in finding.file
    assert "got 3." in finding.message


def test_labels_changed_since_the_last_check_are_read_all_the_same(data):
    assert check(data).findings == ()
    path = data / "scroll_001_seg.b2nd"
    path.unlink()
    blosc2.asarray(np.full((1, 24, 24, 24), 7, np.int8), urlpath=str(path))
    found = {finding.check: finding for finding in check(data).findings}
    assert set(found) == {"checksum", "undeclared-label"}
    assert "got 7." in found["undeclared-label"].message


def test_preprocessed_files_that_are_missing_damaged_or_stale(data):
    (data / "scroll_000.pkl").unlink()
    (data / "scroll_001_seg.b2nd").write_bytes(b"x")
    for path in data.glob("scroll_002*"):
        path.rename(path.with_name(path.name.replace("scroll_002", "gone")))
    found = {(finding.check, finding.file.split("/")[-1]) for finding in check(data).findings}
    assert found == {
        ("missing-preprocessed", "scroll_000.pkl"),
        ("unreadable", "scroll_001_seg.b2nd"),
        ("missing-preprocessed", "scroll_002.b2nd"),
        ("stale-preprocessed", "gone_seg.b2nd"),
    }


def test_a_description_that_changed_after_preprocessing(folder, data):
    path = folder / "dataset.json"
    path.write_text(path.read_text().replace('"ignore"', '"papyrus"'))
    stale = [finding for finding in check(data).findings if finding.check == "stale-preprocessed"]
    assert [finding.severity for finding in stale] == ["error"]
    assert stale[0].file == str(data.parent / "dataset.json")


def test_configurations_and_plans_that_do_not_exist(data):
    finding = only(check(data, configurations=["2d"]), "missing-preprocessed")
    assert finding.file.endswith("nnUNetPlans_2d")
    with pytest.raises(ConfigError, match="Did you mean '3d_fullres'"):
        check(data, configurations=["3d_fulres"])
    with pytest.raises(ConfigError, match="Did you mean 'nnUNetPlans'"):
        check(data, plans_name="nnUnetPlans")


def test_splits(data):
    path = data.parent / "splits_final.json"
    path.write_text(json.dumps([{"train": ["scroll_000", "scroll_001"], "val": ["scroll_002"]}]))
    assert check(data).findings == ()
    path.write_text(json.dumps([{"train": ["scroll_000", "scroll_001"], "val": ["scroll_001", "scroll_007"]}]))
    messages = sorted(finding.message for finding in check(data).findings)
    assert messages == [
        "fold 0: case scroll_001 is in training and validation.",
        "fold 0: expected a case of the dataset, got scroll_007.",
    ]
    for content in ("{}}", "{}", "[]", "null", '[{"train": 5, "val": 5}]'):
        path.write_text(content)
        assert only(check(data), "splits").file == str(path)


@pytest.mark.parametrize("raw", [True, False])
def test_fewer_cases_than_folds_need_splits(data, raw):
    (data.parent / "splits_final.json").unlink()
    (finding,) = (finding for finding in check(data, raw).findings if finding.check == "splits")
    assert finding.severity == "warning"
    assert "got 3" in finding.message
    assert finding.mend == "Train fold all, or write splits_final.json."
    path = data.parent / "dataset.json"
    path.write_text(path.read_text().replace('"numTraining": 3', '"numTraining": 5'))
    assert [finding.check for finding in check(data, raw=False).findings] == []


def settings(**changes):
    return {"3d_fullres": {"data_identifier": "nnUNetPlans_3d_fullres", **changes}}


DAMAGED = [
    ("dataset.json", [], "dataset-json"),
    ("dataset.json", None, "dataset-json"),
    ("dataset.json", 5, "dataset-json"),
    *(
        ("nnUNetPlans.json", {"configurations": configurations}, "unreadable")
        for configurations in (
            {}, [], {"3d_fullres": "x"}, settings(data_identifier=5), settings(spacing="x", patch_size=[1]),
            settings(spacing=["a", "b", "c"]), settings(spacing=[0, 0, 0]),
            settings(spacing=[1, 1], patch_size=[1] * 3),
            settings(patch_size=32), settings(architecture=[]), settings(inherits_from="2d"),
            {"a": {"inherits_from": "b"}, "b": {"inherits_from": "a"}},
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "what"), DAMAGED)
def test_a_damaged_description_is_a_finding(data, name, content, what):
    path = data.parent / name
    path.write_text(json.dumps(content))
    assert only(check(data), what).file == str(path)
