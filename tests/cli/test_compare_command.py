"""nnunet-topo compare, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_topo.cli.__main__ import main


def write(folder: Path, dice: list[float], hd95: list[float]) -> str:
    folder.mkdir()
    entries = [
        {"metrics": {"1": {"Dice": values[0], "hd95": values[1]}}, "prediction_file": f"{folder}/c{number}.tif"}
        for number, values in enumerate(zip(dice, hd95, strict=True))
    ]
    (folder / "summary.json").write_text(json.dumps({"metric_per_case": entries}))
    return str(folder)


@pytest.fixture
def results(tmp_path: Path) -> list[str]:
    return [
        write(tmp_path / "baseline", [0.5] * 8, [2.0, 3.0] * 4),
        write(tmp_path / "better", [0.6, 0.62, 0.58, 0.7, 0.6, 0.61, 0.65, 0.55], [2.5, 2.5] * 4),
        write(tmp_path / "shorter", [0.4] * 7, [1.0] * 7),
    ]


def test_the_table(results: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *results]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"baseline: {results[0]}/summary.json"
    rows = [line for line in lines if line.startswith(("dice", "hd95"))]
    assert rows[0].split()[-2:] == ["8/0/0", "better"]
    assert rows[1].endswith("4/4/0  inside the noise")
    assert rows[2].split()[-2:] == ["0/7/0", "worse"]
    assert rows[3].split()[-2:] == ["7/0/0", "better"]
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert "hd95" in warnings[0]
    assert "c7" in warnings[1]


def test_json(results: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *results, "--metrics", "dice", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["baseline"] == f"{results[0]}/summary.json"
    first, second = report["comparisons"]
    assert [row["metric"] for row in first["differences"]] == ["dice"]
    assert first["differences"][0]["wins"] == 8
    assert second["only_in_baseline"] == ["c7"]
    assert second["differences"][0]["difference"] == pytest.approx(-0.1)


def test_labels_get_rows_of_their_own(results: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *results[:2], "--per-label", "--metrics", "dice"]) == 0
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[4:]] == ["dice", "dice 1"]


def test_bad_arguments(results: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", results[0]]) == 1
    assert "two results" in capsys.readouterr().err
    assert main(["compare", results[0], str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert main(["compare", *results, "--metrics", "cldice"]) == 1
    assert "nnunet-topo evaluate --metrics cldice" in capsys.readouterr().err
