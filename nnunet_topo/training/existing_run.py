"""What a fold's folder already holds: whether a training may start there, and which checkpoint it goes on from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_topo.errors import CheckpointError
from nnunet_topo.training.checkpoint import (
    BEST,
    FINAL,
    LATEST,
    PREVIOUS,
    TOPO_KEY,
    read_checkpoint,
    require_resumable,
)
from nnunet_topo.training.record import over_ranks

OVERWRITE_VARIABLE = "NNUNET_TOPO_OVERWRITE"
FRESH_VARIABLE = "NNUNET_TOPO_ALLOW_FRESH"
RESUMABLE = (FINAL, LATEST, BEST, PREVIOUS)


@dataclass(frozen=True)
class Choice:
    """The checkpoint that a training goes on from.

    Attributes:
        file: its path, None when there is none.
        checkpoint: its content.
        rejected: name and reason of every file that could not be used.
        why: why this one.
    """

    file: Path | None
    checkpoint: dict[str, Any]
    rejected: dict[str, str]
    why: str


def is_set(variable: str) -> bool:
    """Whether an environment variable switches something on; 1 does, nothing else."""
    return os.environ.get(variable, "").strip() == "1"


def look_before_start(plans: dict[str, Any], configuration: str, fold: int | str, trainer_name: str) -> list[str]:
    """Names of the checkpoints in the fold's folder before its trainer exists, as the first rank sees them.

    Only those that a training can go on from make a run: with logs, a figure or a `checkpoint_best_topo.pth` alone,
    which is written before the first epoch is over, nothing is lost. Where a run is, W&B's logger is told to continue
    it, for it deletes its folder otherwise, and `--val` looks like a fresh start to a trainer.

    Args:
        plans: nnU-Net's, with the key `continue_training` that its trainer reads.
        configuration: such as 3d_fullres.
        fold: 0, 1, ... or "all".
        trainer_name: of the class.
    """
    results = os.environ.get("nnUNet_results")
    found: list[str] = []
    if results:
        model = f"{trainer_name}__{plans['plans_name']}__{configuration}"
        folder = Path(results, plans["dataset_name"], model, f"fold_{fold}")
        found = over_ranks([name for name in RESUMABLE if (folder / name).is_file()])[0]
    if found and not is_set(OVERWRITE_VARIABLE):
        plans["continue_training"] = True
    return found


def refuse_to_overwrite(found: Sequence[str], folder: str | Path) -> None:
    """Raise when a training without `--c` would replace a finished or started one.

    Args:
        found: names of the checkpoints that were in the folder before this training.
        folder: the fold's.

    Raises:
        CheckpointError: unless NNUNET_TOPO_OVERWRITE=1.
    """
    if not found or is_set(OVERWRITE_VARIABLE):
        return
    state = "finished" if FINAL in found else "started"
    raise CheckpointError(
        f"--c: expected it, or a folder without a run, got a {state} run ({', '.join(found)}). {folder}. Add --c to go "
        f"on with it, move the folder away to keep it, or set {OVERWRITE_VARIABLE}=1 to delete its checkpoints and "
        "start anew."
    )


def clear_run(folder: str | Path) -> None:
    """Delete a fold's checkpoints: left there, a later `--c` would take the old run for this one."""
    for file in Path(folder).glob("checkpoint_*.pth"):
        file.unlink()


def clear_leftovers(folder: str | Path) -> None:
    """Delete the temporary files that a killed process left."""
    for file in Path(folder).glob("*.tmp"):
        file.unlink()


def newest_valid(folder: str | Path) -> Choice:
    """The newest checkpoint of a fold that can be read as a whole and resumed.

    A whole `checkpoint_final.pth` is the end of a run, so nothing is newer. Of the others the one that got furthest
    counts: nnU-Net's best may be newer than its latest.

    Args:
        folder: the fold's.
    """
    usable: dict[str, dict[str, Any]] = {}
    rejected: dict[str, str] = {}
    for name in RESUMABLE:
        file = Path(folder, name)
        if not file.is_file():
            continue
        try:
            checkpoint = read_checkpoint(file)
            require_resumable(checkpoint, file)
        except CheckpointError as error:
            rejected[name] = str(error)
            continue
        # The first of equally new ones stays, and only the newest is kept in memory.
        if not usable or _progress(checkpoint) > max(map(_progress, usable.values())):
            usable = {name: checkpoint}
        if name == FINAL:
            break
    if not usable:
        return Choice(None, {}, rejected, "")
    (name, checkpoint), *_ = usable.items()
    why = (
        "the end of the run" if name == FINAL else f"the newest whole one, epoch {checkpoint['current_epoch']} is next"
    )
    return Choice(Path(folder, name), checkpoint, rejected, why)


def _progress(checkpoint: Mapping[str, Any]) -> tuple[int, int]:
    """Epochs finished, and steps done of the next one."""
    position = checkpoint[TOPO_KEY].get("position") or {}
    return int(checkpoint["current_epoch"]), int(position.get("steps", 0))


def choose(folder: str | Path, say: Callable[[str], object]) -> Choice:
    """The checkpoint that `--c` goes on from, said aloud with what was rejected and why.

    Args:
        folder: the fold's.
        say: writes a line into the log.

    Raises:
        CheckpointError: there is none, where stock nnU-Net would silently start anew, and NNUNET_TOPO_ALLOW_FRESH is
            not 1. The reason of every file that was rejected is named.
    """
    choice = newest_valid(folder)
    for name, reason in choice.rejected.items():
        say(f"[topo] --c: {name} rejected, {reason}")
    if choice.file is not None:
        say(f"[topo] --c: {choice.file.name} chosen, {choice.why}")
        return choice
    got = "; ".join(f"{name} ({reason})" for name, reason in choice.rejected.items()) or "none"
    if not is_set(FRESH_VARIABLE):
        raise CheckpointError(
            f"--c: expected one of {', '.join(RESUMABLE)} that can be read, got {got}. {folder}. Train without --c, or "
            f"set {FRESH_VARIABLE}=1 to start anew under --c too."
        )
    say(f"[topo] --c: nothing to go on from, {FRESH_VARIABLE}=1: a fresh start")
    return choice
