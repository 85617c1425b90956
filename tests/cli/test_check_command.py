"""`nnunet-topo check` as a user types it, on a synthetic dataset."""

import argparse
import json

import numpy as np
import pytest
import tifffile

from nnunet_topo.cli import check
from nnunet_topo.data.synthetic import write_synthetic_dataset
from nnunet_topo.errors import ConfigError


def call(*arguments):
    parser = argparse.ArgumentParser()
    check.add_parser(parser.add_subparsers(required=True))
    parsed = parser.parse_args(["check", *map(str, arguments)])
    return parsed.run(parsed)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    return write_synthetic_dataset(
        tmp_path / "raw", kind="scroll", cases=2, test_cases=1, size=24, dataset_id=9, progress=False
    )[0]


def test_a_healthy_dataset_gives_0(folder, capsys):
    assert call("-d", 9, "-np", 1) == 0
    printed = capsys.readouterr().out
    assert printed == f"{folder.name}: 2 training and 1 test cases checked, 0 errors, 0 warnings.\n"


def test_an_error_names_file_and_mend_and_gives_1(folder, capsys):
    path = folder / "labelsTr" / "scroll_001.tif"
    labels = tifffile.imread(path)
    labels[0, 0, 0] = 9
    tifffile.imwrite(path, labels)
    (folder / "imagesTr" / "scroll_000.json").unlink()
    assert call("-d", folder.name, "-np", 1) == 1
    printed = capsys.readouterr().out
    assert f"error: {path}\n    expected only the declared values 0, 1, 2, got 9 (1 voxels)." in printed
    assert "-> Write scroll_000.json with" in printed
    assert "undeclared-label            1        0" in printed
    assert "2 errors, 0 warnings." in printed


def test_warnings_count_only_with_strict(folder, capsys):
    for name in ("scroll_000", "scroll_001"):
        path = folder / "labelsTr" / f"{name}.tif"
        labels = tifffile.imread(path)
        tifffile.imwrite(path, np.where(labels == 2, 0, labels).astype(np.uint8))
    assert call("-d", 9, "-np", 1) == 0
    assert call("-d", 9, "-np", 1, "--strict") == 1
    assert "warning: " in capsys.readouterr().out


def test_json_is_the_only_thing_on_standard_output(folder, capsys):
    (folder / "labelsTr" / "scroll_001.json").unlink()
    assert call("-d", 9, "-np", 1, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["dataset"], report["errors"], report["preprocessed"]) == (folder.name, 1, False)
    (finding,) = report["findings"]
    assert finding["file"].endswith("labelsTr/scroll_001.json")
    assert finding.keys() == {"severity", "check", "file", "message", "mend"}


def test_raw_only_leaves_preprocessed_data_out(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    place = tmp_path / "preprocessed" / folder.name
    place.mkdir(parents=True)
    (place / "nnUNetPlans.json").write_text("{}")
    assert call("-d", 9, "-np", 1) == 1
    assert "expected nnU-Net plans" in capsys.readouterr().out
    assert call("-d", 9, "-np", 1, "--raw-only") == 0
    with pytest.raises(ConfigError, match="--raw-only"):
        call("-d", 9, "-c", "3d_fullres", "--raw-only")


def test_wrong_arguments_are_config_errors(folder, monkeypatch):
    with pytest.raises(ConfigError, match="-np: expected at least 1, got 0"):
        call("-d", 9, "-np", 0)
    with pytest.raises(ConfigError, match="expected 10 in"):
        call("-d", 10)
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(ConfigError, match="not set"):
        call("-d", 9)


def test_names_are_checked_before_any_case_is_read(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    place = tmp_path / "preprocessed" / folder.name
    place.mkdir(parents=True)
    plans = {"configurations": {"2d": {"data_identifier": "a"}, "3d_fullres": {"data_identifier": "b"}}}
    (place / "nnUNetPlans.json").write_text(json.dumps(plans))
    (place / "otherPlans.json").write_text("{")
    with pytest.raises(ConfigError, match=r"\(2d, 3d_fullres\), got '3d_fulres'.*Did you mean '3d_fullres'"):
        call("-d", 9, "-c", "3d_fulres", "-np", 1)
    with pytest.raises(ConfigError, match="plans: expected one of nnUNetPlans, otherPlans, got 'Plan'"):
        call("-d", 9, "-p", "Plan", "-np", 1)
    assert "reading cases" not in capsys.readouterr().err


def test_preprocessed_data_alone_is_checked_with_a_warning(folder, tmp_path, monkeypatch, capsys):
    place = tmp_path / "preprocessed" / folder.name
    place.mkdir(parents=True)
    (place / "dataset.json").write_bytes((folder / "dataset.json").read_bytes())
    (place / "splits_final.json").write_text('[{"train": ["scroll_000"], "val": ["scroll_001"]}]')
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "mistyped"))
    assert call("-d", 9, "-np", 1, "--json") == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["severity"], finding["check"]) == ("warning", "missing-folder")
    assert finding["file"] == str(tmp_path / "mistyped" / folder.name)
