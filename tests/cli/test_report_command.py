"""`nnunet-topo report` as a user types it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from nnunet_topo.cli.__main__ import main
from nnunet_topo.evaluation import report_surfaces


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Labels of two sheets, and a prediction of them with a hole and a bridge."""
    monkeypatch.setattr(report_surfaces, "SIDE", 48)
    truth = np.zeros((16, 18, 20), dtype=np.uint8)
    truth[3:6, 2:16, 2:18] = truth[10:13, 2:16, 2:18] = 1
    predicted = truth.copy()
    predicted[3:6, 7:10, 6:9] = 0
    predicted[6:10, 5:8, 12:15] = 1
    for folder, labels in (("labels", truth), ("predictions", predicted)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "case.tif", labels)
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "sheet": 1}, "file_ending": ".tif"}
    content["overwrite_image_reader_writer"] = "Tiff3DIO"
    (tmp_path / "predictions" / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def test_it_says_what_it_found_and_where_the_page_is(folders, capsys):
    arguments = [str(folders / "predictions"), "--ground-truth", str(folders / "labels"), "-np", "1"]
    assert main(["report", *arguments, "-o", str(folders / "page.html")]) == 0
    printed = capsys.readouterr().out
    assert "1 / 1 / 0  mean errors: number of components / loops / cavities" in printed
    assert f"wrote {folders / 'page.html'}" in printed
    page = (folders / "page.html").read_text(encoding="utf-8")
    assert "1 bridge, 1 hole" in page
    assert "joins 2 separate structures" in page

    assert main(["report", *arguments, "--cases", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == str(folders / "predictions" / "report.html")
    assert found["size_bytes"] == (folders / "predictions" / "report.html").stat().st_size
    assert {"value": "1", "meaning": "cases"} in found["figures"]


def test_what_cannot_be_reported_on_gives_1(folders, capsys):
    assert main(["report", str(folders / "predictions")]) == 1
    assert "--ground-truth" in capsys.readouterr().err
    assert main(["report", str(folders), "-np", "0"]) == 1
    assert "-np: expected at least 1, got 0" in capsys.readouterr().err


def test_the_page_has_a_place_before_it_is_made(folders, capsys, monkeypatch):
    monkeypatch.setattr("nnunet_topo.evaluation.report.write_report", lambda *args, **kwargs: pytest.fail("too late"))
    assert main(["report", str(folders / "predictions"), "-o", str(folders)]) == 1
    assert f"-o: expected a file, got a folder. {folders}. Add" in capsys.readouterr().err
    assert main(["report", str(folders / "predictions"), "-o", str(folders / "labels" / "case.tif" / "page.html")]) == 1
    assert "expected a place to write to, got a file" in capsys.readouterr().err
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert main(["report", str(folders / "predictions")]) == 1
    assert "got a folder without permission to write" in capsys.readouterr().err
