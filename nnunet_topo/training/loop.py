"""nnU-Net's training loop, its hooks in their order, that can stop behind any step and go on there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nnunet_topo.training.checkpoint import LATEST
from nnunet_topo.training.guards import is_finite
from nnunet_topo.training.resume import EpochProgress
from nnunet_topo.training.signals import EXIT_CODES, StopSignals

if TYPE_CHECKING:
    from nnunet_topo.training.trainers import nnUNetTrainerTopo


def run_training(trainer: nnUNetTrainerTopo) -> None:
    """Train to the end, or until a signal or too many non-finite steps end it with a checkpoint of that moment.

    Args:
        trainer: holds, when it goes on in the middle of an epoch, how far that epoch has come.

    Raises:
        SystemExit: behind a signal, with its code in `EXIT_CODES`.
        DataError: too many steps in a row had no finite loss and gradient.
    """
    with StopSignals(is_ddp=trainer.is_ddp) as signals:
        try:
            trainer.on_train_start()
            while trainer.current_epoch < trainer.num_epochs and not trainer.stopped:
                _run_epoch(trainer, signals)
            trainer.on_train_end()
            if (signal := signals.pending(0, trainer.device)) is not None:
                trainer.print_to_log_file(f"[topo] {signal}: the training is over, --c runs the final validation")
                raise SystemExit(EXIT_CODES[signal])
        finally:
            # Workers ignore a first SIGTERM, so multiprocessing cannot end them when the process exits.
            for loader in (trainer.dataloader_train, trainer.dataloader_val):
                if hasattr(loader, "_finish"):
                    loader._finish()


def _run_epoch(trainer: nnUNetTrainerTopo, signals: StopSignals) -> None:
    if trainer.progress is None:
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        trainer.progress = EpochProgress()
    else:
        trainer.on_train_epoch_resume()
    progress = trainer.progress
    if not progress.validating:
        while len(progress.training) < trainer.num_iterations_per_epoch:
            progress.training.append(trainer.train_step(next(trainer.dataloader_train)))
            _leave_if_asked(trainer, signals, progress.steps)
        trainer.on_train_epoch_end(progress.training)
        progress.validating = True
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        while len(progress.validation) < trainer.num_val_iterations_per_epoch:
            progress.validation.append(trainer.validation_step(next(trainer.dataloader_val)))
            _leave_if_asked(trainer, signals, progress.steps)
        trainer.on_validation_epoch_end(progress.validation)
    trainer.progress = None
    trainer.on_epoch_end()


def _leave_if_asked(trainer: nnUNetTrainerTopo, signals: StopSignals, step: int) -> None:
    if trainer.guard.exhausted:
        error = trainer.guard.error(trainer.output_folder)
        if is_finite(trainer.network):
            trainer.guard.in_a_row = 0  # a resumed run gets all of its tries
            _save_latest(trainer)
        raise error
    # Counted over the run: an epoch may be shorter than the steps between two questions.
    before = trainer.current_epoch * (trainer.num_iterations_per_epoch + trainer.num_val_iterations_per_epoch)
    signal = signals.pending(before + step, trainer.device)
    if signal is not None:
        _save_latest(trainer)
        trainer.print_to_log_file(f"[topo] {signal}: stopped behind step {step} of the epoch, go on with --c")
        raise SystemExit(EXIT_CODES[signal])


def _save_latest(trainer: nnUNetTrainerTopo) -> None:
    trainer.save_checkpoint(str(Path(trainer.output_folder) / LATEST))
