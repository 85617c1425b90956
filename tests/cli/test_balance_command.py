"""nnunet-topo balance, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_topo.cli.__main__ import main

CASES = {"c0": 0.05, "c1": 0.1, "c2": 0.2, "c3": 0.15}


def write(folder: Path, factor: float | None) -> Path:
    """Cases whose share of foreground is `factor` times the label's; all foreground if None."""
    folder.mkdir()
    for case, share in CASES.items():
        labels = np.zeros(1000, np.uint8)
        labels[: 1000 if factor is None else round(1000 * share * factor)] = 1
        sitk.WriteImage(sitk.GetImageFromArray(labels.reshape(10, 10, 10)), folder / f"{case}.nii.gz")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    made = {"truth": 1.0, "over": 1.5, "good": 1.1, "full": None, "empty": 0.0}
    return {name: str(write(tmp_path / name, factor)) for name, factor in made.items()}


def test_failures_are_named(folders: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["balance", folders["truth"], folders["full"], "-np", "1"]) == 0
    printed = capsys.readouterr().out
    assert "nearly all foreground: " in printed
    assert "uniform: " in printed
    assert "100.000%" in printed
    assert "#" in printed
    assert main(["balance", folders["truth"], folders["empty"], "-np", "1"]) == 0
    assert "empty: nothing is predicted in 4 of 4 cases" in capsys.readouterr().out


def test_select_names_the_folder_on_the_last_line(folders: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    candidates = [folders[name] for name in ("over", "full", "good", "empty")]
    assert main(["balance", folders["truth"], *candidates, "--select", "-np", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"selected: {folders['good']}"


def test_select_refuses_when_all_fail(folders: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["balance", folders["truth"], folders["full"], folders["empty"], "--select", "-np", "1"]) == 1
    output = capsys.readouterr()
    assert "selected" not in output.out
    assert "nearly all foreground" in output.err
    assert "empty" in output.err


def test_json_and_files_hold_every_case(
    folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out" / "balance"
    arguments = [folders["truth"], folders["good"], folders["empty"], "-np", "1", "--select", "-o", str(target)]
    assert main(["balance", *arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((target / "balance.json").read_text())
    assert (target / "balance.png").read_bytes().startswith(b"\x89PNG")
    assert report["selected"] == folders["good"]
    good, empty = report["predictions"]
    assert {case["case"]: case["labelled"] for case in good["cases"]} == CASES
    assert good["median_ratio"] == pytest.approx(1.1)
    assert [finding["name"] for finding in empty["findings"]] == ["empty"]
    # Strict JSON has no infinity.
    assert empty["median_abs_log_ratio"] is None


def test_a_broken_file_is_reported_and_the_rest_is_shown(
    folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(folders["good"]) / "c2.nii.gz").write_bytes(b"no image")
    assert main(["balance", folders["truth"], folders["good"], "-np", "1"]) == 1
    output = capsys.readouterr()
    assert "error: c2: " in output.err
    assert "(3 cases)" in output.out


def test_bad_arguments(folders: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["balance", folders["truth"], folders["truth"] + "x"]) == 1
    assert "truthx" in capsys.readouterr().err
    assert main(["balance", folders["truth"], folders["good"], "-np", "0"]) == 1
    assert "-np" in capsys.readouterr().err
    target = str(Path(folders["good"]) / "c0.nii.gz" / "out")
    assert main(["balance", folders["truth"], folders["good"], "-o", target, "-np", "1"]) == 1
    assert "expected a place to write to, got a file." in capsys.readouterr().err
    # Before anything is counted: it comes first.
    assert main(["balance", folders["truth"] + "x", folders["good"], "-o", target, "-np", "1"]) == 1
    assert "expected a place to write to, got a file." in capsys.readouterr().err
