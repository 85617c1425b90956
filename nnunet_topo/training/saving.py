"""How a trainer comes to its checkpoint and leaves one behind."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_topo.training.checkpoint import (
    BEST,
    FINAL,
    LATEST,
    TOPO_KEY,
    checkpoint_of,
    read_checkpoint,
    restore,
    write_checkpoint,
)
from nnunet_topo.training.existing_run import choose, clear_leftovers, clear_run, refuse_to_overwrite
from nnunet_topo.training.resolution import against_checkpoint

if TYPE_CHECKING:
    from nnunet_topo.training.trainers import nnUNetTrainerTopo


def save(trainer: nnUNetTrainerTopo, file: str | Path) -> None:
    """Write the state of a trainer, between two epochs or in the middle of one; called on every rank."""
    if trainer.disable_checkpointing:
        if trainer.local_rank == 0:
            trainer.print_to_log_file("No checkpoint written, checkpointing is disabled")
        return
    if Path(file).name == LATEST and trainer.progress is None:
        _save_best(trainer)
    section = trainer.topo_section()
    if trainer.local_rank == 0:
        next_epoch = trainer.current_epoch + (trainer.progress is None)
        # A latest one that could not be read must not push the one before it out.
        unreadable = trainer.choice.rejected if trainer.choice else {}
        checkpoint = checkpoint_of(trainer, section, next_epoch)
        write_checkpoint(checkpoint, file, keep_latest=LATEST not in unreadable)
        unreadable.pop(Path(file).name, None)


def _save_best(trainer: nnUNetTrainerTopo) -> None:
    """Write `checkpoint_best.pth` where the epoch is the best: before the latest one, and not behind it as stock does.

    The latest one would else hold the best value of the epochs before, and a run that goes on from it replace the best
    checkpoint by a worse one.
    """
    averages = trainer.logger.get_value("ema_fg_dice", step=None)
    if not averages or not math.isfinite(averages[-1]):
        return
    if trainer._best_ema is None or averages[-1] > trainer._best_ema:
        trainer._best_ema = averages[-1]
        trainer.print_to_log_file(f"[topo] new best moving average of the pseudo Dice: {averages[-1]:.4f}")
        trainer.save_checkpoint(str(Path(trainer.output_folder) / BEST))


def load(trainer: nnUNetTrainerTopo, named: str | Path | dict[str, Any]) -> None:
    """Take up a checkpoint; its recipe wins over one that nobody named.

    With `--c` the file that stock nnU-Net came upon gives way to the newest valid one of the fold. In any other case,
    as for `--val` and `--val_best`, it is that file or none.

    Args:
        trainer: need not be initialised.
        named: a file, or what `read_checkpoint` gave.

    Raises:
        CheckpointError: unreadable, unsafe, of another network, or with `--c` of another recipe.
    """
    if isinstance(named, dict):
        file, checkpoint = "a checkpoint in memory", named
    elif _is_for_going_on(trainer, Path(named)):
        choice = choose(trainer.output_folder, trainer.print_to_log_file)
        trainer.choice = replace(choice, checkpoint={})  # it is large, and nnU-Net writes what a trainer holds down
        if choice.file is None:
            return
        file, checkpoint = str(choice.file), choice.checkpoint
    else:
        file, checkpoint = str(named), read_checkpoint(named)
    section = checkpoint.get(TOPO_KEY, {})
    continues = trainer.continue_training
    resolved = against_checkpoint(trainer.resolved, section.get("recipe"), continue_training=continues, file=file)
    if not trainer.was_initialized:
        trainer.follow(resolved)
        trainer.initialize()
    restore(trainer, checkpoint, file)
    trainer.load_topo_section(section, file)
    trainer.loaded_checkpoint = file


def _is_for_going_on(trainer: nnUNetTrainerTopo, file: Path) -> bool:
    """Only the first file of a `--c`: what comes after the training is that of `--val_best`."""
    is_first = trainer.continue_training and trainer.choice is None and trainer.loaded_checkpoint is None
    return is_first and file.resolve().parent == Path(trainer.output_folder).resolve()


def go_on_or_refuse(trainer: nnUNetTrainerTopo) -> None:
    """Make sure that a training which is about to write has taken up what is in its folder, or may replace it.

    Raises:
        CheckpointError: `--c` without a checkpoint, or a run without `--c`.
    """
    if trainer.loaded_checkpoint is None and trainer.choice is None:
        if trainer.continue_training:  # stock nnU-Net found none, but does not know the previous one
            load(trainer, Path(trainer.output_folder) / FINAL)
        else:
            refuse_to_overwrite(trainer.found_checkpoints, trainer.output_folder)


def clear_folder(trainer: nnUNetTrainerTopo) -> None:
    """Delete what a killed process left half-written, and the run that this one replaces."""
    clear_leftovers(trainer.output_folder)
    if trainer.loaded_checkpoint is None and not trainer.continue_training:
        clear_run(trainer.output_folder)
