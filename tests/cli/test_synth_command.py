"""`nnunet-topo synth` as a user types it."""

import argparse
import json

import pytest

from nnunet_topo.cli import synth
from nnunet_topo.errors import ConfigError


def call(*arguments):
    parser = argparse.ArgumentParser()
    synth.add_parser(parser.add_subparsers(required=True))
    parsed = parser.parse_args(["synth", *map(str, arguments)])
    return parsed.run(parsed)


def test_writes_a_dataset_and_prints_its_topology(tmp_path, capsys):
    assert call("-o", tmp_path, "--kind", "scroll", "-n", 2, "--size", 24, "--test-cases", 1, "--dataset-id", 5) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "Dataset005_SyntheticScroll"
    assert (folder / "dataset.json").is_file()
    assert len(list((folder / "imagesTr").glob("*.tif"))) == 2
    assert "scroll_001" in printed
    assert str(folder) in printed


def test_json_is_the_only_thing_on_standard_output(tmp_path, capsys):
    assert call("-o", tmp_path, "--kind", "vessels", "-n", 1, "--size", 24, "--test-cases", 0, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["folder"].endswith("Dataset998_SyntheticVessels")
    (row,) = summary["cases"]
    assert (row["case"], row["split"], row["b0"]) == ("vessels_000", "train", 1)


def test_the_raw_folder_of_the_environment_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert call("-n", 1, "--size", 24, "--test-cases", 0) == 0
    assert (tmp_path / "Dataset998_SyntheticScroll").is_dir()
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(ConfigError, match="nnUNet_raw, got neither"):
        call("-n", 1, "--size", 24)


def test_wrong_arguments_are_config_errors(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'vessels'"):
        call("-o", tmp_path, "--kind", "vessel")
    call("-o", tmp_path, "-n", 1, "--size", 24, "--test-cases", 0)
    with pytest.raises(ConfigError, match="--force"):
        call("-o", tmp_path, "-n", 1, "--size", 24)
    assert call("-o", tmp_path, "-n", 1, "--size", 24, "--test-cases", 0, "--force") == 0


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"expected a place to write to, got a file. {tmp_path / 'file'}. Choose"):
        call("-o", tmp_path / "file" / "raw", "--size", 24, "-n", 1)
