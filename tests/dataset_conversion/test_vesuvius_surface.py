"""The Vesuvius converter on a small folder in Kaggle's layout."""

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nnunet_topo.data.check import check_dataset
from nnunet_topo.data.synthetic import make_case
from nnunet_topo.errors import ConfigError, DataError

SCRIPT = Path(__file__).parents[2] / "dataset_conversion" / "Dataset100_VesuviusSurface.py"
SCROLLS = {"101": "34117", "102": "34117", "103": "34117", "201": "35360", "202": "35360", "301": "26010"}


def load_script():
    specification = importlib.util.spec_from_file_location("vesuvius_surface", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["vesuvius_surface"] = module
    specification.loader.exec_module(module)
    return module


script = load_script()


def save(path, volume):
    """One LZW strip after another and no metadata, as the competition's stacks have them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as writer:
        for plane in volume:
            writer.write(plane, compression="lzw", contiguous=False, metadata=None, photometric="minisblack")


@pytest.fixture
def kaggle(tmp_path):
    """Volumes of two sizes (256 and 320 scaled down), one withdrawn pair, one test volume."""
    folder = tmp_path / "kaggle"
    for index, case in enumerate(SCROLLS):
        volume = make_case("scroll", size=26 if case == "301" else 32, seed=1, index=index)
        save(folder / "train_images" / f"{case}.tif", volume.image)
        save(folder / "train_labels" / f"{case}.tif", volume.labels)
    withdrawn = make_case("scroll", size=26, seed=2, index=0, test=True)
    save(folder / "deprecated_train_images" / "900.tif", withdrawn.image)
    save(folder / "deprecated_train_labels" / "900.tif", withdrawn.labels)
    save(folder / "test_images" / "777.tif", withdrawn.image)
    with (folder / "train.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("id", "scroll_id"), *SCROLLS.items(), ("900", "44430")])
    return folder


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))


def convert(kaggle, *arguments):
    return script.main([str(kaggle), "-np", "1", *arguments])


def dataset_folder(kaggle):
    return kaggle.parent / "raw" / "Dataset100_VesuviusSurface"


def snapshot(folder):
    return {
        str(path.relative_to(folder)): (os.readlink(path) if path.is_symlink() else path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
    }


def test_the_dataset_is_what_nnunet_and_check_expect(kaggle, capsys):
    assert convert(kaggle) == 0
    printed = capsys.readouterr().out
    assert "1 withdrawn pairs left out" in printed
    assert "6 training cases, 1 test cases" in printed
    folder = dataset_folder(kaggle)
    description = json.loads((folder / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "surface": 1, "ignore": 2}
    assert description["channel_names"] == {"0": "CT"}
    assert (description["numTraining"], description["file_ending"]) == (6, ".tif")
    assert not list(folder.rglob("900*"))
    for part in ("imagesTr/101", "labelsTr/101", "imagesTs/777"):
        assert json.loads((folder / f"{part}.json").read_text()) == {"spacing": [1.0, 1.0, 1.0]}
    assert (folder / "imagesTr" / "101_0000.tif").is_symlink()
    report = check_dataset(100, raw=folder.parent, preprocessed=None, progress=False)
    assert report.findings == ()
    assert (report.training_cases, report.test_cases) == (6, 1)


@pytest.mark.slow
def test_nnunet_accepts_the_dataset(kaggle):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    convert(kaggle)
    verify_dataset_integrity(str(dataset_folder(kaggle)), num_processes=1)


def test_folds_keep_scrolls_together_and_lie_where_nnunet_looks(kaggle):
    convert(kaggle)
    beside = dataset_folder(kaggle) / "splits_final.json"
    used = kaggle.parent / "preprocessed" / "Dataset100_VesuviusSurface" / "splits_final.json"
    splits = json.loads(used.read_text())
    assert splits == json.loads(beside.read_text())
    assert len(splits) == 3
    assert sorted(case for fold in splits for case in fold["val"]) == sorted(SCROLLS)
    for fold in splits:
        assert set(fold["train"]) | set(fold["val"]) == set(SCROLLS)
        assert not {SCROLLS[case] for case in fold["train"]} & {SCROLLS[case] for case in fold["val"]}


def test_number_of_folds(kaggle):
    assert convert(kaggle, "--folds", "2") == 0
    assert len(json.loads((dataset_folder(kaggle) / "splits_final.json").read_text())) == 2
    with pytest.raises(ConfigError, match="folds: expected 2 to 3"):
        convert(kaggle, "--folds", "4")


def test_existing_folds_are_not_overwritten(kaggle, capsys):
    used = kaggle.parent / "preprocessed" / "Dataset100_VesuviusSurface" / "splits_final.json"
    used.parent.mkdir(parents=True)
    used.write_text("[]")
    assert convert(kaggle) == 0
    assert used.read_text() == "[]"
    assert "left as it is" in capsys.readouterr().out


def test_without_a_preprocessed_folder_the_user_is_told_where_the_folds_go(kaggle, monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_preprocessed")
    assert convert(kaggle) == 0
    assert "Copy the file to $nnUNet_preprocessed/Dataset100_VesuviusSurface/" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["--link", "--copy"])
def test_running_it_again_changes_nothing(kaggle, way):
    convert(kaggle, way)
    folder = dataset_folder(kaggle)
    before = snapshot(folder)
    times = {path: path.lstat().st_mtime_ns for path in folder.rglob("*.tif")}
    assert convert(kaggle, way) == 0
    assert snapshot(folder) == before
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*.tif")} == times


def test_copies_replace_links(kaggle):
    convert(kaggle)
    convert(kaggle, "--copy")
    image = dataset_folder(kaggle) / "imagesTr" / "101_0000.tif"
    assert not image.is_symlink()
    assert image.read_bytes() == (kaggle / "train_images" / "101.tif").read_bytes()
    convert(kaggle, "--link")
    assert image.is_symlink()


def test_bad_pairs_are_left_out_named_and_make_the_status_1(kaggle, capsys):
    convert(kaggle)
    damaged = kaggle / "train_images" / "101.tif"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    strange = make_case("scroll", size=32, seed=1, index=1).labels
    strange[5, 5, 5:8] = 3
    save(kaggle / "train_labels" / "102.tif", strange)
    save(kaggle / "train_labels" / "201.tif", strange[:-2])
    (kaggle / "train_labels" / "202.tif").unlink()
    capsys.readouterr()
    assert convert(kaggle) == 1
    printed = capsys.readouterr().out
    for text in (
        f"error: {damaged}",
        "2 (unlabelled), got 3 (3 voxels)",
        "expected the shape (32, 32, 32) of its image, got (30, 32, 32)",
        "expected a file of volume 202, got none",
        "2 training cases",
    ):
        assert text in printed
    folder = dataset_folder(kaggle)
    assert sorted(path.name for path in (folder / "imagesTr").iterdir()) == [
        "103.json",
        "103_0000.tif",
        "301.json",
        "301_0000.tif",
    ]
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 2
    splits = json.loads((folder / "splits_final.json").read_text())
    assert sorted(splits[0]["train"] + splits[0]["val"]) == ["103", "301"]


def test_a_volume_without_unlabelled_voxels_is_suspicious(kaggle, capsys):
    assert convert(kaggle, "--with-deprecated") == 0
    printed = capsys.readouterr().out
    assert f"warning: {kaggle / 'deprecated_train_labels' / '900.tif'}" in printed
    assert "7 training cases" in printed


def test_label_2_cannot_become_foreground(kaggle, capsys):
    with pytest.raises(SystemExit):
        convert(kaggle, "--help")
    assert "foreground" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        convert(kaggle, "--labels", "2")


def test_a_volume_without_scroll_is_left_out(kaggle, capsys):
    save(kaggle / "train_images" / "555.tif", np.zeros((4, 4, 4), np.uint8))
    save(kaggle / "train_labels" / "555.tif", np.zeros((4, 4, 4), np.uint8))
    assert convert(kaggle) == 1
    assert "expected a row of volume 555 in train.csv" in capsys.readouterr().out
    assert not list(dataset_folder(kaggle).rglob("555*"))


def test_one_scroll_gives_no_folds_but_a_warning(kaggle, capsys):
    (kaggle / "train.csv").write_text("id,scroll_id\n" + "".join(f"{case},1\n" for case in SCROLLS))
    assert convert(kaggle) == 0
    assert "no split by scroll is possible" in capsys.readouterr().out
    assert not (dataset_folder(kaggle) / "splits_final.json").exists()


def test_what_is_no_kaggle_folder_is_refused(kaggle, tmp_path):
    with pytest.raises(DataError, match=r"train\.csv: expected columns"):
        convert(tmp_path)
    (kaggle / "train.csv").write_text("volume\n1\n")
    with pytest.raises(DataError, match="KeyError"):
        convert(kaggle)
    (kaggle / "train.csv").write_text("id,scroll_id\n900,1\n")
    for part in ("train_images", "train_labels"):
        for path in (kaggle / part).iterdir():
            path.unlink()
    with pytest.raises(DataError, match="at least one intact pair"):
        convert(kaggle)


def test_foreign_datasets_are_left_alone(kaggle):
    folder = dataset_folder(kaggle)
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="got something else"):
        convert(kaggle)
    assert snapshot(folder) == {"mine.txt": b"precious"}
    with pytest.raises(ConfigError, match="used by Dataset100_VesuviusSurface"):
        convert(kaggle, "--name", "Other")
    assert convert(kaggle, "-d", "101", "--channel-name", "micro-CT") == 0
    description = json.loads((folder.parent / "Dataset101_VesuviusSurface" / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "micro-CT"}


def test_as_a_script_errors_have_no_traceback(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    result = subprocess.run(
        [sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: train.csv: expected columns id and scroll_id")
    assert "Traceback" not in result.stderr
