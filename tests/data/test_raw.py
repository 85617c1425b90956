"""Helpers for nnU-Net's raw layout: names, side-cars, splits, links and copies."""

import json
import os
from pathlib import Path

import pytest

from nnunet_topo.data.raw import (
    case_identifier,
    dataset_folder_name,
    find_dataset,
    grouped_splits,
    place_file,
    read_json,
    remove_other_cases,
    require_writable,
    write_dataset_json,
    write_json,
    write_spacing_sidecar,
)
from nnunet_topo.errors import ConfigError, DataError


def test_folder_names():
    assert dataset_folder_name(7, "Vesuvius_Surface") == "Dataset007_Vesuvius_Surface"
    for dataset_id, name in ((0, "A"), (1000, "A"), (1, ""), (1, "a/b"), (1, "a__b")):
        with pytest.raises(ConfigError):
            dataset_folder_name(dataset_id, name)


def test_find_dataset(tmp_path):
    (tmp_path / "Dataset001_A").mkdir()
    (tmp_path / "Dataset010_B").mkdir()
    assert find_dataset(tmp_path, 1) == find_dataset(tmp_path, "Dataset001_A") == tmp_path / "Dataset001_A"
    assert find_dataset(tmp_path, "10") == tmp_path / "Dataset010_B"
    assert find_dataset(tmp_path, 2) is None
    assert find_dataset(tmp_path / "nowhere", 1) is None


def test_case_identifiers():
    assert case_identifier("a_b_0000.nii.gz", ".nii.gz") == "a_b"
    for name in ("a_b.nii.gz", "a_000.nii.gz", "a_0000.nii", "_0000.nii.gz"):
        assert case_identifier(name, ".nii.gz") is None


def test_sidecars_are_read_by_nnunet(tmp_path):
    import numpy as np
    import tifffile
    from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

    for name in ("a_0000.tif", "a.tif"):
        tifffile.imwrite(tmp_path / name, np.zeros((4, 5, 6), np.uint8), photometric="minisblack")
    write_spacing_sidecar(tmp_path, "a", (3, 0.5, 1))
    assert Tiff3DIO().read_images([str(tmp_path / "a_0000.tif")])[1]["spacing"] == [3.0, 0.5, 1.0]
    assert Tiff3DIO().read_seg(str(tmp_path / "a.tif"))[1]["spacing"] == [3.0, 0.5, 1.0]
    for spacing in ((1, 1), (1, 1, 0)):
        with pytest.raises(DataError, match="three numbers > 0"):
            write_spacing_sidecar(tmp_path, "a", spacing)


def test_dataset_json_goes_through_nnunet_and_leaves_its_arguments_alone(tmp_path):
    channels, labels = {0: "CT"}, {"background": 0, "whole": (1, 2), "core": 2}
    path = write_dataset_json(
        tmp_path,
        channel_names=channels,
        labels=labels,
        training_cases=3,
        file_ending=".tif",
        name="A",
        description="b",
        licence="CC0",
        converted_by="me",
        regions_class_order=(1, 2),
    )
    content = json.loads(path.read_text())
    assert content["channel_names"] == {"0": "CT"}
    assert content["labels"] == {"background": 0, "whole": [1, 2], "core": 2}
    assert content["regions_class_order"] == [1, 2]
    assert (channels, labels) == ({0: "CT"}, {"background": 0, "whole": (1, 2), "core": 2})


def test_grouped_splits_balance_whole_groups():
    sizes = {"a": 40, "b": 18, "c": 13, "d": 9, "e": 2, "f": 1}
    groups = {f"{group}{index}": group for group, size in sizes.items() for index in range(size)}
    splits = grouped_splits(groups)
    assert [len(fold["val"]) for fold in splits] == [40, 18, 13, 9, 3]
    for fold in splits:
        assert sorted(fold["train"] + fold["val"]) == sorted(groups)
        assert not {groups[case] for case in fold["train"]} & {groups[case] for case in fold["val"]}
    assert grouped_splits(dict(reversed(groups.items()))) == splits
    assert len(grouped_splits(groups, 2)) == 2
    for folds in (0, 1, 7):
        with pytest.raises(ConfigError, match="expected 2 to 6"):
            grouped_splits(groups, folds)
    with pytest.raises(ConfigError):
        grouped_splits({"x": "a", "y": "a"})


def test_files_are_placed_once(tmp_path):
    source, target = tmp_path / "source.tif", tmp_path / "target.tif"
    source.write_text("one")
    place_file(source, target, copy=False)
    assert target.readlink() == source
    place_file(source, target, copy=True)
    assert not target.is_symlink()
    inode = target.stat().st_ino
    place_file(source, target, copy=True)
    assert target.stat().st_ino == inode
    source.write_text("other")
    place_file(source, target, copy=True)
    assert target.read_text() == "other"
    with pytest.raises(DataError, match="expected to place"):
        place_file(source, tmp_path / "absent" / "target.tif", copy=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.tif", "target.tif"]


def test_only_files_of_other_cases_are_removed(tmp_path):
    for name in ("a_0000.tif", "a.json", "b_0000.tif", "b_0001.tif", "b.json", "a_b.tif", "readme.txt"):
        (tmp_path / name).write_text("")
    assert remove_other_cases(tmp_path, ["a"], ".tif") == ["a_b.tif", "b.json", "b_0000.tif", "b_0001.tif"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a_0000.tif", "readme.txt"]


def test_json_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"a\.json: expected a readable JSON file"):
        read_json(path)
    with pytest.raises(DataError, match=rf"got: No such file or directory\. {tmp_path / 'absent.json'}\. Check"):
        read_json(tmp_path / "absent.json")


def test_a_place_to_write_to_need_not_exist_but_must_be_possible(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    require_writable(tmp_path)
    require_writable(tmp_path / "not" / "yet")
    monkeypatch.chdir(tmp_path)
    require_writable(Path("not") / "yet")
    assert os.listdir(tmp_path) == ["file"]
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("file") / "below"):
        with pytest.raises(ConfigError, match=r"got a file\. .*file\. Choose another"):
            require_writable(place)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(ConfigError, match=rf"without permission to write\. {tmp_path}\. Choose"):
        require_writable(tmp_path / "not" / "yet")
