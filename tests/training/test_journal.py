from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.training import journal as journal_module
from nnunet_topo.training.atomic import write_atomically
from nnunet_topo.training.journal import Journal, json_legal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "topo_journal.jsonl")


def fill(journal: Journal, epochs: int) -> None:
    for epoch in range(epochs):
        journal.append_event(epoch, "phase", f"phase {epoch} begins", epoch - 1, epoch)
        journal.append_epoch({"epoch": epoch, "lr": 0.01})


def test_epoch_and_event_lines_in_the_file(journal: Journal) -> None:
    journal.append_epoch({"epoch": 0, "lr": 0.01, "weights": {"dice": 1.0}})
    journal.append_event(3, "phase", 'a "quoted"\nreason', {"dice": 1.0}, None)
    raw = journal.path.read_bytes()
    assert raw.endswith(b"\n")
    assert [json.loads(line) for line in raw.splitlines()] == [
        {"kind": "epoch", "epoch": 0, "lr": 0.01, "weights": {"dice": 1.0}},
        {"kind": "event", "epoch": 3, "what": "phase", "why": 'a "quoted"\nreason', "from": {"dice": 1.0}, "to": None},
    ]
    assert journal.lines() == [json.loads(line) for line in raw.splitlines()]


def test_lines_without_a_file_and_of_an_empty_file(journal: Journal) -> None:
    assert journal.lines() == []
    journal.path.touch()
    assert journal.lines() == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (-np.inf, None),
        (np.float32("nan"), None),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([1.0, np.nan]), [1.0, None]),
        (np.array(2.5), 2.5),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (torch.tensor(0.25, requires_grad=True), 0.25),
        (torch.tensor([1.0, float("inf")]), [1.0, None]),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        ({1: (np.float32(1), None)}, {"1": [1.0, None]}),
        (Path("a") / "b", os.path.join("a", "b")),
        ("text", "text"),
        (True, True),
    ],
)
def test_values_become_what_strict_json_can_hold(journal: Journal, value: object, expected: object) -> None:
    assert json_legal(value) == expected
    assert type(json_legal(value)) is type(expected)
    journal.append_epoch({"epoch": np.int64(0), "value": value})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(journal.path.read_text(), parse_constant=refuse)["value"] == expected


def test_a_value_without_json_form_is_refused_by_name_and_nothing_is_written(journal: Journal) -> None:
    with pytest.raises(ConfigError, match=r"value\.weights\.dice.*complex"):
        journal.append_epoch({"epoch": 0, "weights": {"dice": 1j}})
    assert not journal.path.exists()


@pytest.mark.parametrize("epoch", [None, -1, 1.0, True, "1"])
def test_bad_epochs_are_refused(journal: Journal, epoch: object) -> None:
    with pytest.raises(ConfigError, match="epoch: expected an int >= 0"):
        journal.append_epoch({"epoch": epoch})
    with pytest.raises(ConfigError, match="epoch: expected an int >= 0"):
        journal.append_event(epoch, "phase", "why", 0, 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="epoch: expected an int >= 0"):
        journal.cut_back(epoch)  # type: ignore[arg-type]


def test_there_is_no_third_kind_of_line(journal: Journal) -> None:
    with pytest.raises(ConfigError, match="expected kind 'epoch'"):
        journal.append_epoch({"kind": "event", "epoch": 0})


@pytest.mark.parametrize(
    "torn", [b'{"kind": "epo', b"\x00\x00\x00", b'{"kind": "epoch", "epoch": 2, "x": "\xc3', b"{}\n"]
)
def test_a_torn_last_line_is_left_out_and_replaced_by_the_next(journal: Journal, torn: bytes) -> None:
    fill(journal, 2)
    sound = journal.lines()
    with open(journal.path, "ab") as file:
        file.write(torn)
    assert journal.lines() == sound
    journal.append_epoch({"epoch": 2})
    assert journal.lines() == [*sound, {"kind": "epoch", "epoch": 2}]
    assert [json.loads(line)["epoch"] for line in journal.path.read_bytes().splitlines()] == [0, 0, 1, 1, 2]


def test_every_prefix_of_a_file_is_readable_and_can_be_continued(journal: Journal) -> None:
    fill(journal, 2)
    content, lines = journal.path.read_bytes(), journal.lines()
    for length in range(len(content) + 1):
        journal.path.write_bytes(content[:length])
        kept = journal.lines()
        assert kept == lines[: len(kept)]
        assert len(kept) >= content[:length].count(b"\n")
        journal.append_event(9, "stop", "test", None, None)
        assert journal.lines()[:-1] == kept
        assert journal.path.read_bytes().count(b"\n") == len(kept) + 1


def test_a_whole_line_that_only_lacks_its_end_is_kept(journal: Journal) -> None:
    journal.path.write_bytes(b'{"kind": "epoch", "epoch": 0}')
    journal.append_epoch({"epoch": 1})
    assert [line["epoch"] for line in journal.lines()] == [0, 1]


@pytest.mark.parametrize("damaged", [b"garbage", b"", b'{"kind": "note", "epoch": 0}', b'{"kind": "epoch"}', b"[1]"])
def test_damage_before_the_last_line_is_named(journal: Journal, damaged: bytes) -> None:
    fill(journal, 2)
    raws = journal.path.read_bytes().splitlines()
    journal.path.write_bytes(b"\n".join([raws[0], damaged, *raws[1:]]) + b"\n")
    with pytest.raises(DataError, match=rf"{journal.path.name}, line 2\."):
        journal.lines()


@pytest.mark.parametrize("epoch", range(5))
def test_cut_back_keeps_exactly_the_earlier_epochs_byte_for_byte(journal: Journal, epoch: int) -> None:
    fill(journal, 3)
    raws = journal.path.read_bytes().splitlines(keepends=True)
    with open(journal.path, "ab") as file:
        file.write(b'{"torn')
    journal.cut_back(epoch)
    assert journal.path.read_bytes() == b"".join(raws[: 2 * epoch])
    assert list(journal.path.parent.iterdir()) == [journal.path]


def test_cut_back_without_a_file_makes_none(journal: Journal) -> None:
    journal.cut_back(3)
    assert not journal.path.exists()


def test_a_crash_while_cutting_back_leaves_the_old_file(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(journal, 3)
    before = journal.path.read_bytes()

    def crash(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(journal_module.os, "replace", crash)
    with pytest.raises(DataError, match="no space left"):
        journal.cut_back(1)
    assert journal.path.read_bytes() == before


def test_each_append_is_one_write_and_reaches_the_disk(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def fsync(descriptor: int) -> None:
        sizes.append(journal.path.stat().st_size)

    monkeypatch.setattr(journal_module.os, "fsync", fsync)
    journal.append_epoch({"epoch": 0})
    assert sizes[0] == len(b'{"kind": "epoch", "epoch": 0}\n')


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_writer_leaves_a_journal_that_goes_on(journal: Journal) -> None:
    program = (
        "import sys; from nnunet_topo.training.journal import Journal\n"
        "journal = Journal(sys.argv[1])\n"
        "for epoch in range(10**9):\n"
        "    journal.append_epoch({'epoch': epoch, 'padding': 'x' * 20000})\n"
        "    print(epoch, flush=True)\n"
    )
    root = Path(journal_module.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program, str(journal.path)], cwd=root, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        reported = [int(child.stdout.readline()) for _ in range(20)]
        child.kill()
        reported += [int(line) for line in child.stdout.read().splitlines()]
    epochs = [line["epoch"] for line in journal.lines()]
    assert epochs[: len(reported)] == reported
    journal.append_epoch({"epoch": 10**9})
    assert [line["epoch"] for line in journal.lines()] == [*epochs, 10**9]


def test_write_atomically_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    for content in (b"old", b"newer"):
        write_atomically(file, content)
        assert file.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.png"]


def test_counting_needs_no_sound_lines(journal: Journal) -> None:
    """A checkpoint notes the count, and an edited journal must not keep it from being written."""
    assert journal.count() == 0
    journal.append_epoch({"epoch": 0})
    journal.append_event(1, "phase", "why", None, None)
    assert journal.count() == len(journal.lines()) == 2
    journal.path.write_bytes(b"edited\n" + journal.path.read_bytes() + b"torn")
    assert journal.count() == 3


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_cut_that_cannot_be_written_leaves_the_file(journal: Journal, monkeypatch, epoch: int) -> None:
    fill(journal, 3)
    before = journal.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nnunet_topo.training.atomic.os.fsync", full)
    with pytest.raises(DataError, match=r"^journal: .*No space left.*topo_journal\.jsonl"):
        journal.cut_back(epoch)
    assert journal.path.read_bytes() == before
