"""Reading and writing checkpoints."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_topo.errors import CheckpointError
from nnunet_topo.training.checkpoint import load_weights, read_checkpoint, to_builtins, write_checkpoint

GOOD = {"network_weights": {"weight": torch.arange(3.0)}, "current_epoch": 2}


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def test_round_trip(tmp_path: Path) -> None:
    write_checkpoint(GOOD, tmp_path / "a.pth")
    assert torch.equal(read_checkpoint(tmp_path / "a.pth")["network_weights"]["weight"], torch.arange(3.0))
    assert os.listdir(tmp_path) == ["a.pth"]


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    write_checkpoint(GOOD, file)
    old = file.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        write_checkpoint({**GOOD, "bad": lambda: None}, file)
    assert file.read_bytes() == old
    assert os.listdir(tmp_path) == ["a.pth"]


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({**GOOD, "evil": Malicious(marker)}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"mkdir.*which loading would run"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not marker.exists()


@pytest.mark.parametrize("length", [0, 10, 300])
def test_truncated_file(tmp_path: Path, length: int) -> None:
    file = tmp_path / "a.pth"
    write_checkpoint(GOOD, file)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        read_checkpoint(file)


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"hello\n" * 100, bytes(4096)],
    ids=["empty", "pointer", "text", "zeros"],
)
def test_bytes_that_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "checkpoint_latest.pth"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(file))):
        read_checkpoint(file)


def test_any_cut_of_a_file_in_the_old_format(tmp_path: Path) -> None:
    """Such bytes fail in many ways, each of which must let `--c` look at the next file."""
    file = tmp_path / "checkpoint_latest.pth"
    torch.save({"network_weights": {"a": torch.ones(3)}}, file, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(file)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none"):
        read_checkpoint(tmp_path / "none.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="network_weights"):
        read_checkpoint(tmp_path / "list.pth")


def test_section_that_is_no_mapping(tmp_path: Path) -> None:
    torch.save({**GOOD, "nnunet_topo": None}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="expected a mapping under 'nnunet_topo'"):
        read_checkpoint(tmp_path / "odd.pth")


def test_numpy_scalars_of_stock_checkpoints_are_read(tmp_path: Path) -> None:
    logging = {"mean_fg_dice": [np.float32(0.5), np.float64(0.25)], "n": np.int64(3), "best": np.bool_(True)}
    torch.save({**GOOD, "logging": logging}, tmp_path / "stock.pth")
    assert read_checkpoint(tmp_path / "stock.pth")["logging"] == logging


def test_to_builtins_leaves_no_numpy() -> None:
    value = {"a": [np.float64(1.5), (np.int64(2), np.arange(2))], "t": torch.ones(1)}
    plain = to_builtins(value)
    assert plain["a"] == [1.5, (2, [0, 1])]
    assert type(plain["a"][0]) is float
    assert plain["t"] is value["t"]


def test_weights_of_another_network(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"mine\.pth"):
        load_weights(torch.nn.Linear(2, 2), {"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, "mine.pth")
