"""Labels found in preprocessed segmentations, in both of nnU-Net's formats."""

import json
import os
import shutil

import blosc2
import numpy as np
import pytest

from nnunet_topo.data import labels as module
from nnunet_topo.data.labels import (
    declared_labels,
    distinct_values,
    labels_in_preprocessed,
    require_declared_labels,
    scan_preprocessed,
    unexpected_labels,
)
from nnunet_topo.errors import DataError

DATASET = {"labels": {"background": 0, "surface": 1, "ignore": 2}}
CASES = {"case_a": [0, 1, 2], "case_b": [-1, 0, 1], "case_c": [0, 7, 255]}


def segmentation(values):
    array = np.zeros((1, 6, 7, 8), np.int16)
    array[0, 2, 3, : len(values)] = values
    array[array == 0] = 0 if 0 in values else values[0]
    return array


def write_blosc2(folder, cases):
    folder.mkdir(parents=True)
    for case, values in cases.items():
        blosc2.asarray(np.zeros((1, 6, 7, 8), np.float32), urlpath=str(folder / f"{case}.b2nd"))
        blosc2.asarray(segmentation(values), urlpath=str(folder / f"{case}_seg.b2nd"))
        (folder / f"{case}.pkl").write_bytes(b"")


def write_npz(folder, cases):
    folder.mkdir(parents=True)
    for case, values in cases.items():
        np.savez_compressed(folder / f"{case}.npz", data=np.zeros((1, 6, 7, 8)), seg=segmentation(values))
        (folder / f"{case}.pkl").write_bytes(b"")


@pytest.fixture(params=[write_blosc2, write_npz], ids=["blosc2", "npz"])
def folder(request, tmp_path):
    path = tmp_path / "Dataset100_Surface" / "nnUNetPlans_3d_fullres"
    request.param(path, CASES)
    return path


def test_distinct_values_by_case(folder):
    expected = {"case_a": (0, 1, 2), "case_b": (-1, 0, 1), "case_c": (0, 7, 255)}
    assert labels_in_preprocessed(folder, processes=2) == expected
    assert labels_in_preprocessed(folder, ["case_b"]) == {"case_b": (-1, 0, 1)}


def test_only_undeclared_values_are_unexpected(folder):
    assert unexpected_labels(folder, DATASET) == {"case_c": (7, 255)}
    assert unexpected_labels(folder, DATASET, ["case_a", "case_b"]) == {}
    regions = {"labels": {"background": 0, "whole": [1, 2], "ring": [2]}}
    assert unexpected_labels(folder, regions, ["case_a"]) == {}
    assert unexpected_labels(folder, {"labels": {"background": 0, "surface": 1}}, ["case_a"]) == {"case_a": (2,)}


def test_refusal_names_file_values_and_mend(folder):
    require_declared_labels(folder, DATASET, ["case_a", "case_b"])
    with pytest.raises(
        DataError, match=r"expected 0, 1, 2 .* got case_c[._a-z0-9]*: 7, 255\. .*preprocess again"
    ) as raised:
        require_declared_labels(folder, DATASET)
    assert str(folder) in str(raised.value)


def test_unpacked_arrays_are_preferred(tmp_path):
    path = tmp_path / "nnUNetPlans_2d"
    write_npz(path, {"case_a": [0, 1]})
    np.save(path / "case_a_seg.npy", segmentation([0, 3]))
    assert labels_in_preprocessed(path) == {"case_a": (0, 3)}


def test_second_call_reads_only_what_changed(folder, monkeypatch):
    labels_in_preprocessed(folder)
    read = []
    original = module._distinct_values_or_error
    monkeypatch.setattr(module, "_distinct_values_or_error", lambda path: read.append(path.name) or original(path))
    assert labels_in_preprocessed(folder)["case_c"] == (0, 7, 255)
    assert read == []
    changed = next(folder.glob("case_a_seg.b2nd"), folder / "case_a.npz")
    os.utime(changed, ns=(0, 1))
    labels_in_preprocessed(folder)
    assert read == [changed.name]


def test_nnunet_still_recognises_the_folder_afterwards(folder):
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    before = infer_dataset_class(str(folder))
    labels_in_preprocessed(folder)
    assert infer_dataset_class(str(folder)) is before
    assert (folder.parent / "nnunet_topo_cache" / f"labels_{folder.name}.json").is_file()


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 0}', '{"version": 1, "files": {"case_a.npz": 3}}'])
def test_a_damaged_cache_is_ignored(folder, content):
    cache = folder.parent / "nnunet_topo_cache" / f"labels_{folder.name}.json"
    cache.parent.mkdir()
    cache.write_text(content)
    assert labels_in_preprocessed(folder)["case_a"] == (0, 1, 2)
    assert json.loads(cache.read_text())["version"] == 1


def test_a_place_that_cannot_be_written_only_costs_the_cache(folder, monkeypatch):
    def refuse(path, content):
        raise PermissionError(13, "read-only", str(path))

    monkeypatch.setattr(module, "write_json", refuse)
    assert labels_in_preprocessed(folder)["case_a"] == (0, 1, 2)
    assert not list(folder.parent.rglob("labels_*.json"))


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_a_truncated_file_is_named(folder, keep):
    path = next(folder.glob("case_b_seg.b2nd"), folder / "case_b.npz")
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(DataError, match="expected a readable file") as raised:
        labels_in_preprocessed(folder)
    assert str(path) in str(raised.value)
    found, unreadable = scan_preprocessed(folder)
    assert found == {"case_a": (0, 1, 2), "case_c": (0, 7, 255)}
    assert list(unreadable) == ["case_b"]


def test_missing_things_are_named(folder, tmp_path):
    with pytest.raises(DataError, match=r"expected absent(_seg\.b2nd|\.npz), got no such file"):
        labels_in_preprocessed(folder, ["absent"])
    with pytest.raises(DataError, match="got no such folder"):
        labels_in_preprocessed(tmp_path / "nowhere")
    (folder / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"files ending in .*'txt'"):
        labels_in_preprocessed(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(DataError, match="expected preprocessed cases"):
        labels_in_preprocessed(folder)


def test_declared_labels():
    assert declared_labels(DATASET) == {0, 1, 2}
    assert declared_labels({"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}}) == {0, 1, 2, 3}
    for labels in (None, {}, {"background": "0"}, {"background": 0, "a": [1, 1.5]}, {"a": True}):
        with pytest.raises(DataError, match=r"labels: expected .*dataset\.json"):
            declared_labels({"labels": labels})


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.float32])
def test_distinct_values_equal_numpy(dtype):
    array = np.random.default_rng(0).integers(0, 120, size=(5, 6, 7)).astype(dtype)
    assert distinct_values(array) == tuple(np.unique(array).astype(int))
    assert distinct_values(array % 3) == tuple(np.unique(array % 3).astype(int))
    assert distinct_values(array[:0]) == ()
