"""The faults, each with its checks; every function gives the rows of the table in the docs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fault_bench import RECIPE, STEPS, STEPS_PER_EPOCH, Bench, Training, journal
from fault_child import Disturbance

from nnunet_topo.training.checkpoint import FINAL, LATEST
from nnunet_topo.training.existing_run import newest_valid
from nnunet_topo.training.journal import Journal

BIT_EQUAL = "same weights as undisturbed, bit for bit"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        fault: what was done to a training.
        left: the checkpoints that it left.
        said: what the next command says.
        outcome: how it ends.
    """

    fault: str
    left: str
    said: str
    outcome: str


# ------------------------------------------------------------------------------------------------------------ kill -9


def kill_moments(bench: Bench, number: int, seed: int = 0) -> list[tuple[str, Disturbance]]:
    """Random moments to kill a training at: as many by the clock as in the middle of saving a checkpoint.

    Returns:
        For each its description and what is to be done.
    """
    rng = np.random.default_rng(seed)
    names = [name for name, *_ in bench.whole.ledger]
    latest = [index for index, name in enumerate(names) if name == LATEST]
    size = (bench.whole.folder / FINAL).stat().st_size
    moments = []
    for index in range(number):
        save, share = int(rng.integers(len(names))), float(rng.uniform())
        when, late = str(rng.choice(["before", "between", "after"])), int(rng.choice(latest[1:]))
        step, delay_s = int(rng.integers(-1, STEPS - 1)), float(rng.uniform(0, bench.duration_s / STEPS))
        if index % 2 == 0:
            told = f"{delay_s * 1000:.0f} ms behind " + (f"step {step + 1} of {STEPS}" if step >= 0 else "the start")
            moments.append((told, Disturbance("clock", step=step, delay_s=delay_s)))
        elif index % 4 == 1:
            told = f"{int(share * size)} bytes of checkpoint {save + 1} of {len(names)} written"
            moments.append((told, Disturbance("bytes", save=save, size_bytes=int(share * size))))
        else:
            save = late if when == "between" else save
            told = f"{when} the renaming" + (" of the old and the new latest one" if when == "between" else "")
            told += f", checkpoint {save + 1} of {len(names)}"
            moments.append((told, Disturbance("rename", save=save, when=when)))
    return moments


def save_number(bench: Bench, name: str, time: int) -> int:
    """Number of a save in the undisturbed training, counted from 0 over all files.

    Args:
        bench: has trained it.
        name: "latest", "best" or "final".
        time: how many of that name come before it.
    """
    names = [saved for saved, *_ in bench.whole.ledger]
    return [index for index, saved in enumerate(names) if saved == f"checkpoint_{name}.pth"][time]


def kill(bench: Bench, case: str, told: str, disturbance: Disturbance) -> Row:
    """Kill a training, look at what it left, go on to the end."""
    killed = bench.train(case, disturbance=disturbance)
    assert killed.status == -9, killed.said
    bench.check_state(killed)
    left = _left(killed.folder)
    resumed = bench.go_on(case)
    went_on = " chosen, " in resumed.said
    said = _choice(resumed) if went_on else "--c refused, nothing to go on from; started without it"
    return Row(f"kill -9, {told}", left, said, BIT_EQUAL)


def _left(folder: Path) -> str:
    names = sorted(file.name for file in folder.glob("checkpoint_*"))
    return ", ".join(name.removeprefix("checkpoint_").removesuffix(".pth") for name in names) or "none"


# ------------------------------------------------------------------------------------------------------------ signals


def stop(bench: Bench, case: str, name: str, step: int) -> Row:
    """Send a training a signal behind a step, count from 0, go on to the end."""
    status = {"SIGTERM": 143, "SIGUSR1": 75}[name]
    stopped = bench.train(case, disturbance=Disturbance("signal", name=name, step=step))
    assert stopped.status == status, stopped.said
    assert f"[topo] {name}: stopped behind step" in stopped.said
    bench.check_state(stopped)
    epoch, steps = divmod(step + 1, STEPS_PER_EPOCH)
    # Behind the last step of an epoch the epoch is not over yet.
    epoch, steps = (epoch, steps) if steps else (epoch - 1, STEPS_PER_EPOCH)
    assert stopped.ledger[-1] == ("checkpoint_latest.pth", epoch, steps)
    left = _left(stopped.folder)
    resumed = bench.go_on(case)
    assert "[topo] resume" in resumed.said
    ran = resumed.said.count("Epoch time")
    assert ran == RECIPE["epochs"] - epoch
    training = RECIPE["iterations_per_epoch"]
    place = f"training step {steps}" if steps <= training else f"validation step {steps - training}"
    row = f"{name} in epoch {epoch}, {place}: exit {status}"
    return Row(row, left, _choice(resumed), BIT_EQUAL)


def stop_with_workers(bench: Bench) -> Row:
    """Signal a training and its augmentation workers, as a scheduler does, and go on to the end."""
    case, workers = "workers", {"nnUNet_n_proc_DA": "2"}
    stopped = bench.train(case, environment=workers, disturbance=Disturbance("signal to all", step=6))
    assert stopped.status == 143, stopped.said
    assert "background workers are no longer alive" not in stopped.said
    bench.check_state(stopped)
    left = _left(stopped.folder)
    resumed = bench.train(case, environment=workers, continues=True)
    assert resumed.status == 0, resumed.said
    reached = [line["epoch"] for line in journal(resumed) if line["kind"] == "epoch"]
    assert reached == list(range(RECIPE["epochs"]))
    # Patches differ, what follows from the recipe does not.
    settled = [
        [line[key] for key in ("lr", "weights", "phase")] for line in journal(resumed) if line["kind"] == "epoch"
    ]
    expected = [
        [line[key] for key in ("lr", "weights", "phase")] for line in journal(bench.whole) if line["kind"] == "epoch"
    ]
    assert settled[:3] == expected[:3]
    return Row(
        "SIGTERM to the training and its 2 workers: exit 143",
        left,
        _choice(resumed),
        "trains to the end, same schedule",
    )


# -------------------------------------------------------------------------------------------------------------- files


def interrupted(bench: Bench) -> str:
    """Name of a case that was killed behind its third latest checkpoint, with latest, best and previous on disk."""
    if not bench.folder("interrupted").exists():
        save = save_number(bench, "latest", 2) + 1
        killed = bench.train("interrupted", disturbance=Disturbance("bytes", save=save, size_bytes=1000))
        assert killed.status == -9, killed.said
        assert [name for name, *_ in killed.ledger].count("checkpoint_latest.pth") == 3
        bench.check_state(killed)
    return "interrupted"


def damage(bench: Bench, names: list[str], *, source: str, flip: bool = False) -> Row:
    """Truncate checkpoints of a case, or flip bits in them, and go on with what is left."""
    case = f"{source} {'flip' if flip else 'truncate'} {' '.join(names)}"
    folder = bench.copy(source, case)
    for name in names:
        file = folder / f"checkpoint_{name}.pth"
        content = bytearray(file.read_bytes())
        if flip:  # more than the padding between two tensors
            for place in range(len(content) // 2, len(content) // 2 + 256):
                content[place] ^= 1
        file.write_bytes(content if flip else content[: len(content) // 2])
    left = _left(folder)
    validated = bench.train(case, validates=True) if "final" in names else None
    if validated is not None:
        assert validated.status == 1
        assert "error: checkpoint: expected a readable file" in validated.said
    resumed = bench.go_on(case)
    for name in names:
        assert f"--c: checkpoint_{name}.pth rejected, checkpoint: expected a readable file" in resumed.said
    if "Epoch time" in resumed.said:  # where the last epoch is over, the journal is complete
        rejected = {event["from"] for event in _events(resumed, "checkpoint rejected")}
        assert rejected == {f"checkpoint_{name}.pth" for name in names}
    done = "256 bits flipped" if flip else "truncated"
    told = "finished run" if source == "whole" else "interrupted run"
    said = [resumed.line(f"--c: checkpoint_{name}.pth rejected") for name in names]
    return Row(f"{', '.join(names)} {done}, {told}", left, " ".join([*said, _choice(resumed)]), BIT_EQUAL)


def _choice(training: Training) -> str:
    """The line that says which checkpoint was chosen and why."""
    return next(line[line.index("--c: ") :] for line in training.said.splitlines() if " chosen, " in line)


def nothing_left(bench: Bench) -> list[Row]:
    """Damage every checkpoint: refused, unless a fresh start is allowed."""
    case = "nothing left"
    folder = bench.copy(interrupted(bench), case)
    left = _left(folder)
    for file in folder.glob("checkpoint_*.pth"):
        file.write_bytes(file.read_bytes()[:100])
    refused = bench.train(case, continues=True)
    assert refused.status == 1
    for name in ("latest", "best", "previous"):
        assert f"checkpoint_{name}.pth rejected" in refused.said
    fresh = bench.train(case, continues=True, environment={"NNUNET_TOPO_ALLOW_FRESH": "1"})
    assert fresh.status == 0, fresh.said
    bench.check_end(fresh)
    return [
        Row("every checkpoint truncated", left, refused.line("error: --c"), "refused, nothing changed"),
        Row("the same, NNUNET_TOPO_ALLOW_FRESH=1", left, fresh.line("--c: nothing"), BIT_EQUAL),
    ]


def no_checkpoint(bench: Bench) -> Row:
    """`--c` in an empty folder."""
    refused = bench.train("empty", continues=True)
    assert refused.status == 1
    assert "expected one of checkpoint_final.pth" in refused.said
    assert not list(refused.folder.glob("checkpoint_*"))
    return Row("--c without any checkpoint", "none", refused.line("error: --c"), "refused")


def forgotten_flag(bench: Bench) -> list[Row]:
    """Train without `--c` where a run is: refused, unless it may be deleted."""
    case = "forgotten"
    folder = bench.copy(interrupted(bench), case)
    (folder / "wandb").mkdir()
    before = {file.name: file.read_bytes() for file in folder.glob("checkpoint_*")}
    left = _left(folder)
    refused = bench.train(case)
    assert refused.status == 1
    assert "got a started run" in refused.said
    assert {file.name: file.read_bytes() for file in folder.glob("checkpoint_*")} == before
    assert (folder / "wandb").is_dir()
    again = bench.train(case, environment={"NNUNET_TOPO_OVERWRITE": "1"})
    assert again.status == 0, again.said
    bench.check_end(again)
    return [
        Row("--c forgotten", left, refused.line("error: --c"), "refused, nothing changed"),
        Row("the same, NNUNET_TOPO_OVERWRITE=1", left, "trains anew", BIT_EQUAL),
    ]


def other_recipe(bench: Bench) -> Row:
    """Go on under another recipe: refused."""
    case = "other recipe"
    folder = bench.copy(interrupted(bench), case)
    before = {file.name: file.read_bytes() for file in folder.glob("checkpoint_*")}
    left = _left(folder)
    refused = bench.train(case, continues=True, environment={"NNUNET_TOPO_RECIPE": str(bench.root / "other.yaml")})
    assert refused.status == 1
    assert "optimizer.lr: 0.01 -> 0.5" in refused.said
    assert {file.name: file.read_bytes() for file in folder.glob("checkpoint_*")} == before
    bench.go_on(case)
    return Row("--c with another recipe", left, refused.line("error: --c"), "refused; with its own: " + BIT_EQUAL)


class Malicious:
    """An object whose unpickling makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        """What pickle runs to get it back."""
        return os.mkdir, (str(self.marker),)


def malicious(bench: Bench) -> list[Row]:
    """A latest checkpoint that would run code."""
    rows = []
    for trusted in (False, True):
        case = f"malicious {trusted}"
        folder = bench.copy(interrupted(bench), case)
        left, marker = _left(folder), bench.root / f"ran {trusted}"
        latest = torch.load(folder / "checkpoint_latest.pth", weights_only=True)
        torch.save({**latest, "evil": Malicious(marker)}, folder / "checkpoint_latest.pth")
        if trusted:
            resumed = bench.train(case, continues=True, environment={"NNUNET_TOPO_TRUST": "1"})
            assert resumed.status == 0, resumed.said
            bench.check_end(resumed)
        else:
            resumed = bench.go_on(case)
            assert "'posix.mkdir', which loading would run" in resumed.line("--c: checkpoint_latest.pth rejected")
        assert marker.exists() == trusted
        assert ("latest" in _choice(resumed)) == trusted
        told = "latest holds code" if not trusted else "the same, NNUNET_TOPO_TRUST=1"
        outcome = BIT_EQUAL + (", code not run" if not trusted else ", code was run")
        said = [resumed.line("--c: checkpoint_latest.pth rejected"), _choice(resumed)]
        rows.append(Row(told, left, " ".join(said), outcome))
    return rows


# --------------------------------------------------------------------------------------------------------------- disk


def disk_full(bench: Bench) -> Row:
    """No file may become as large as a checkpoint, from the second epoch on: the write fails as on a full disk."""
    case = "disk full"
    save = save_number(bench, "latest", 1)
    first = bench.train(case, disturbance=Disturbance("bytes", save=save, size_bytes=1000))
    assert first.status == -9, first.said
    size = (first.folder / "checkpoint_latest.pth").stat().st_size
    full = bench.train(case, continues=True, disturbance=Disturbance("file size", size_bytes=size - 1000))
    assert full.status == 1, full.said
    assert "error: checkpoint: expected to write a file, got OSError [Errno 27]" in full.said
    bench.check_state(first)
    assert not list(full.folder.glob("*.tmp"))
    left = _left(full.folder)
    bench.go_on(case)
    return Row("no room for a checkpoint", left, full.line("error: checkpoint"), BIT_EQUAL)


# --------------------------------------------------------------------------------------------------------- not finite


def not_finite(bench: Bench) -> list[Row]:
    """NaN in the images of some steps, then of so many that the run ends."""
    few = bench.train("some nan", disturbance=Disturbance("nan", step=4, steps=2))
    assert few.status == 0, few.said
    events = _events(few, "step skipped")
    assert [event["epoch"] for event in events] == [1, 1]
    assert all(event["to"]["loss"] == "nan" and len(event["to"]["cases"]) == 2 for event in events)
    many = bench.train("many nan", disturbance=Disturbance("nan", step=5, steps=99))
    assert many.status == 1
    assert "error: max_nonfinite_steps: expected fewer than 3 steps in a row" in many.said
    bench.check_state(many)
    choice = newest_valid(many.folder)
    assert choice.file is not None
    assert all(bool(torch.isfinite(value).all()) for value in choice.checkpoint["network_weights"].values())
    left = _left(many.folder)
    resumed = bench.train("many nan", continues=True)
    assert resumed.status == 0, resumed.said
    skipped = f"2 steps skipped, {few.line('the loss is not finite')}"
    return [
        Row("NaN in two steps", "", skipped, "trains to the end"),
        Row("NaN in every step", left, many.line("error: max_nonfinite"), "ended; goes on with --c"),
    ]


def _events(training: Training, what: str) -> list[dict[str, object]]:
    lines = Journal(training.folder / "topo_journal.jsonl").lines()
    return [line for line in lines if line.get("what") == what]


def all_steps() -> range:
    """Every step that a training can be stopped behind."""
    return range(STEPS)
