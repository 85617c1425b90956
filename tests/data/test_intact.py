"""Preprocessed files that are damaged, and those that only changed."""

import os

import blosc2
import numpy as np
import pytest

from nnunet_topo.data.intact import check_intact

CASES = ("a", "b", "c")


def write(folder, seed):
    random = np.random.default_rng(seed)
    for case in CASES:
        for name, array in {
            f"{case}.b2nd": random.random((1, 16, 18, 20), np.float32),
            f"{case}_seg.b2nd": random.integers(0, 2, (1, 16, 18, 20), np.int8),
        }.items():
            (folder / name).unlink(missing_ok=True)
            blosc2.asarray(array, urlpath=str(folder / name))
        (folder / f"{case}.pkl").write_bytes(bytes([seed]))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "Dataset001_A" / "nnUNetPlans_3d_fullres"
    folder.mkdir(parents=True)
    write(folder, 0)
    return folder


def found(folder):
    return [(finding.check, os.path.basename(finding.file)) for finding in check_intact(folder, CASES, processes=2)]


def flip_a_byte(path):
    """In the middle of what is stored, keeping size and time."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_sound_files_have_no_findings_however_often_they_are_looked_at(folder):
    assert found(folder) == found(folder) == []


def test_a_foreign_file_does_not_come_into_nnunets_folder(folder):
    before = sorted(folder.iterdir())
    found(folder)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", ["a.b2nd", "b_seg.b2nd"])
def test_a_truncated_file_is_named_at_the_first_look(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert found(folder) == [("unreadable", name)]


@pytest.mark.parametrize("name", ["a.b2nd", "b_seg.b2nd", "c.pkl"])
def test_a_flipped_bit_is_found_again_and_again_with_the_old_time_and_with_a_new_one(folder, name):
    assert found(folder) == []
    flip_a_byte(folder / name)
    assert [file for _, file in found(folder)] == [name]
    os.utime(folder / name)
    assert [file for _, file in found(folder)] == [name]


def test_preprocessing_again_is_no_damage(folder):
    assert found(folder) == []
    write(folder, 1)
    assert found(folder) == []
    flip_a_byte(folder / "c.pkl")
    assert found(folder) == [("checksum", "c.pkl")]


def test_labels_of_another_shape(folder):
    (folder / "b_seg.b2nd").unlink()
    blosc2.asarray(np.zeros((1, 16, 18, 19), np.int8), urlpath=str(folder / "b_seg.b2nd"))
    assert found(folder) == [("shape", "b_seg.b2nd")]


def test_a_damaged_record_is_written_anew(folder):
    found(folder)
    record = folder.parent / "nnunet_topo_cache" / f"checksums_{folder.name}.json"
    record.write_text("{")
    assert found(folder) == []
    flip_a_byte(folder / "a.pkl")
    assert found(folder) == [("checksum", "a.pkl")]
