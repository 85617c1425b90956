"""`nnunet-topo evaluate`: what it prints, writes and returns."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))

from label_folders import Folders, random_labels

from nnunet_topo.cli.__main__ import main


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Three cases with an ignore label."""
    folders = Folders(tmp_path / "data", {"background": 0, "sheet": 1, "ignore": 2})
    folders.add_random(3, (0, 1), (2,))
    return folders


def run(folders: Folders, *options: str) -> int:
    return main(["evaluate", str(folders.truth), str(folders.predictions), "-np", "1", *options])


def test_scores_are_printed_and_written_beside_the_predictions(folders: Folders, capsys) -> None:
    assert run(folders) == 0
    printed = capsys.readouterr()
    summary = json.loads((folders.predictions / "summary_topo.json").read_text())
    assert (folders.predictions / "summary_topo.csv").is_file()
    row = next(line for line in printed.out.splitlines() if line.startswith("Dice"))
    assert row.split() == ["Dice", f"{summary['mean']['1']['Dice']:.4g}", "±", f"{summary['sd']['1']['Dice']:.2g}"]
    assert "mean ± standard deviation of 3 cases, 0 not scored" in printed.out
    assert f"labels from {folders.root / 'dataset.json'}, label 2 ignored" in printed.out
    assert "3/3" in printed.err
    assert summary["settings"]["tolerance_mm"] == 2.0


def test_a_second_run_does_not_take_its_own_files_for_cases(folders: Folders) -> None:
    assert run(folders) == 0
    assert run(folders) == 0


def test_json_is_what_was_written(folders: Folders, tmp_path: Path, capsys) -> None:
    options = ("--metrics", "clDice", "betti_0_error", "--connectivity", "6", "--tolerance", "1.5", "--json")
    assert run(folders, "-o", str(tmp_path / "out" / "scores.json"), *options) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (tmp_path / "out" / "scores.csv").is_file()
    assert (printed["settings"]["connectivity"], printed["settings"]["tolerance_mm"]) == (6, 1.5)
    assert {"Dice", "cldice", "betti_0_error"} <= printed["foreground_mean"].keys()
    assert "hd95" not in printed["foreground_mean"]


def test_a_broken_case_is_reported_and_the_status_is_one(folders: Folders, tmp_path: Path, capsys) -> None:
    path = folders.predictions / "a1.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    folders.add("lost", random_labels(0), None)
    assert run(folders, "-o", str(tmp_path / "out")) == 1
    printed = capsys.readouterr()
    assert "error: a1: a1.nii.gz: expected a file that SimpleITKIO can read" in printed.err
    assert "error: lost: prediction: expected a file, got none" in printed.err
    assert "of 2 cases, 2 not scored" in printed.out
    summary = json.loads((tmp_path / "out" / "summary_topo.json").read_text())
    assert [error["case"] for error in summary["errors"]] == ["a1", "lost"]
    assert run(folders, "--chill") == 1
    path.unlink()
    assert run(folders, "--chill") == 0


def test_scores_are_not_replaced_by_those_of_no_case(folders: Folders, capsys) -> None:
    assert run(folders) == 0
    before = (folders.predictions / "summary_topo.json").read_bytes()
    assert run(folders, "--connectivity", "4") == 1  # of images
    errors = capsys.readouterr().err
    assert "connectivity: expected" in errors
    assert "error: cases: expected at least one that can be scored, got none." in errors
    assert (folders.predictions / "summary_topo.json").read_bytes() == before


def test_complete_scores_are_not_replaced_by_incomplete_ones(folders: Folders, tmp_path: Path, capsys) -> None:
    """One fold's predictions against the labels of all folds."""
    assert run(folders, "--chill", "--metrics", "dice") == 0
    files = [folders.predictions / f"summary_topo.{ending}" for ending in ("json", "csv")]
    before = [file.read_bytes() for file in files]
    folders.add("other_fold", random_labels(0), None)
    assert run(folders, "--metrics", "dice") == 1
    printed = capsys.readouterr()
    assert "mean ± standard deviation of 3 cases, 1 not scored" in printed.out
    assert "wrote" not in printed.out.split("1 not scored")[1]
    error = printed.err.splitlines()[-1]
    assert error.startswith("error: summary_topo.json: expected every case to be scored")
    assert "--chill" in error
    assert "-o" in error
    assert [file.read_bytes() for file in files] == before
    # Asked for by name, or no better than what is there.
    assert run(folders, "--metrics", "dice", "-o", str(folders.predictions)) == 1
    assert json.loads(files[0].read_text())["errors"] != []
    incomplete = files[0].read_bytes()
    assert run(folders, "--metrics", "hd95") == 1
    assert files[0].read_bytes() != incomplete


def test_several_labels_get_a_column_each_and_the_mean(tmp_path: Path, capsys) -> None:
    folders = Folders(tmp_path / "data", None)
    folders.add_random(2, (0, 1, 4))
    assert run(folders, "--metrics", "assd") == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split() == ["metric", "label", "1", "label", "4", "mean"]
    assert "assd (mm)" in printed
    assert "labels from the ground truth (no dataset.json)" in printed
    assert run(folders, "--ignore-label", "4") == 0
    assert "label 4 ignored" in capsys.readouterr().out


def test_what_cannot_begin_is_one_line(folders: Folders, tmp_path: Path, capsys) -> None:
    assert run(folders, "--preset", "vessels") == 1
    assert "Did you mean 'vessel'?" in capsys.readouterr().err
    assert run(folders, "--metrics", "hausdorff") == 1
    assert capsys.readouterr().err.startswith("error: metric: expected one of")
    (tmp_path / "file").write_text("")
    assert run(folders, "-o", str(tmp_path / "file" / "out")) == 1
    said = capsys.readouterr().err
    assert (
        said
        == f"error: output folder: expected a place to write to, got a file. {tmp_path / 'file'}. Choose another.\n"
    )
    assert run(folders, "-np", "0") == 1
    assert capsys.readouterr().err.startswith("error: -np: expected at least 1, got 0.")
    assert run(folders, "--ignore-label", "1") == 1
    assert "error: ignore_label: expected that of dataset.json or preset (2), got 1." in capsys.readouterr().err
    assert run(folders, "--ignore-label", "2", "--metrics", "dice") == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "nowhere"), str(folders.predictions)]) == 1
    assert "ground truth folder: expected a folder, got no such folder" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "file"), str(folders.predictions)]) == 1
    assert "ground truth folder: expected a folder, got a file." in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()
