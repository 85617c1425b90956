"""The trainers that `nnUNetv2_train -tr` finds: nnU-Net's hooks, each delegating.

They keep nnU-Net's preprocessing, augmentation, network, GPU training and prediction as they are. A new experiment is a
recipe, not a class; a subclass only names another default.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import time
from typing import Any, cast

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_topo import __version__
from nnunet_topo.control import Event, LearningRateControl, PhaseControl, build_controls, load_control_states
from nnunet_topo.control.action import AddNoise
from nnunet_topo.errors import DataError, show_without_traceback
from nnunet_topo.losses import NNUNET_TERM, CompoundLoss
from nnunet_topo.recipe import Recipe
from nnunet_topo.training.actions import KeptWeights, add_due_noise, execute, keep_if_best
from nnunet_topo.training.averaging import WeightAverage, put_average_in_place
from nnunet_topo.training.checkpoint import TOPO_KEY
from nnunet_topo.training.data_checks import require_usable_data
from nnunet_topo.training.existing_run import Choice, look_before_start
from nnunet_topo.training.figure import draw_progress
from nnunet_topo.training.guards import NonFiniteGuard, sound_steps
from nnunet_topo.training.journal import Journal
from nnunet_topo.training.loggers import forward_epoch, mend_moving_average, pseudo_dice_record, tensorboard_logger
from nnunet_topo.training.loop import run_training
from nnunet_topo.training.loss import build_loss, deep_supervision_weights
from nnunet_topo.training.monitors import Monitors
from nnunet_topo.training.noise import require_noisy_parameters
from nnunet_topo.training.optimization import (
    EpochLearningRate,
    build_optimizer,
    freeze_parameters,
    keep_frozen_statistics,
)
from nnunet_topo.training.record import (
    foreground_record,
    gradient_norm_record,
    loss_record,
    to_numpy,
    valid_voxels,
)
from nnunet_topo.training.resolution import (
    ResolvedRecipe,
    refuse_other_folds,
    require_axes,
    resolve_recipe,
    start_events,
    write_recipe,
)
from nnunet_topo.training.resume import (
    EpochProgress,
    load_resume_section,
    restore_rank,
    resume_section,
    seed_generators,
    seed_or_restore,
)
from nnunet_topo.training.saving import clear_folder, go_on_or_refuse, load, save
from nnunet_topo.training.start_from import fingerprint, needs_weights, start_from
from nnunet_topo.training.step import train_step
from nnunet_topo.training.targets import append_to_pipelines, label_targets_for
from nnunet_topo.training.validation import summarize_validation


class nnUNetTrainerTopo(nnUNetTrainer):
    """nnU-Net's trainer following a recipe.

    The recipe is, in this order: the one that the environment variable NNUNET_TOPO_RECIPE names (a name or a path), the
    one in the plans file (`nnunet-topo plan` writes it there), `default_recipe`.
    """

    default_recipe = "nnunet"

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        show_without_traceback()
        self.continue_training = bool(plans.get("continue_training", False))
        resolved = resolve_recipe(plans, type(self).default_recipe)
        if resolved.recipe.seed is not None:
            seed_generators(resolved.recipe.seed)
        self.found_checkpoints = look_before_start(plans, configuration, fold, type(self).__name__)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.journal = Journal(Path(self.output_folder) / "topo_journal.jsonl")
        self.loaded_checkpoint: str | None = None
        self.choice: Choice | None = None
        self.progress: EpochProgress | None = None
        self.rank_state: dict[str, Any] = {}
        self.journal_lines: int | None = None
        self.epoch_record: dict[str, Any] = {}
        self.terms: dict[str, Tensor] = {}
        self.follow(resolved)

    def follow(self, resolved: ResolvedRecipe) -> None:
        """Take a recipe up: nnU-Net's own settings from it, and the controls."""
        recipe = resolved.recipe
        require_axes(recipe, self.configuration_manager.patch_size, self.configuration_name)
        self.resolved = resolved
        self.initial_lr = recipe.optimizer.lr
        self.weight_decay = recipe.optimizer.weight_decay
        self.oversample_foreground_percent = recipe.sampling.foreground
        self.probabilistic_oversampling = recipe.sampling.probabilistic
        self.num_iterations_per_epoch = recipe.iterations_per_epoch
        self.num_val_iterations_per_epoch = recipe.validation_iterations
        self.num_epochs = recipe.epochs
        self.save_every = recipe.checkpoint_every
        self.guard = NonFiniteGuard(recipe.max_nonfinite_steps)
        self.controls = build_controls(recipe)
        self.phases = cast(PhaseControl, self.controls["phases"])
        self.learning_rate = cast(LearningRateControl, self.controls["learning_rate"])
        self.average, self.kept_weights, self.stopped = WeightAverage(recipe), KeptWeights(), False
        self.noise_due: list[AddNoise] = []

    @property
    def recipe(self) -> Recipe:
        """The recipe of this run."""
        return self.resolved.recipe

    # ---------------------------------------------------------------------------------------------------- building

    def initialize(self) -> None:
        """nnU-Net's initialisation; the loggers get the recipe."""
        super().initialize()
        self.logger.update_config({TOPO_KEY: {"version": __version__, "recipe": self.recipe.to_mapping()}})
        self._initial_weights = fingerprint(self.network) if needs_weights(self.recipe) else 0.0

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, EpochLearningRate]:
        """The recipe's optimiser over its trainable parameters, and the schedule that sets its learning rate."""
        frozen = freeze_parameters(self.network, self.recipe)
        if frozen:
            self.print_to_log_file(f"trainable: {frozen} parameter tensors are frozen")
        require_noisy_parameters(self.network, self.recipe)
        optimizer = build_optimizer(self.network, self.recipe)
        return optimizer, EpochLearningRate(optimizer, self.learning_rate)

    def _build_loss(self) -> nn.Module:
        scales = self._get_deep_supervision_scales()
        compiled = self._do_i_compile()
        loss = build_loss(
            self.recipe,
            self.label_manager,
            spacing_mm=self.patch_spacing(),
            batch_dice=self.configuration_manager.batch_dice,
            scale_weights=scales and deep_supervision_weights(len(scales), is_ddp=self.is_ddp, compiled=compiled),
            is_ddp=self.is_ddp,
            stock=super()._build_loss,
        )
        return loss.to(self.device)  # buffers of the user's own terms, such as class weights

    def patch_spacing(self) -> tuple[float, ...]:
        """Spacing in mm of the patch's axes; a 2-D configuration may list the slice distance before them."""
        configuration = self.configuration_manager
        return tuple(configuration.spacing[-len(configuration.patch_size) :])

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        """nnU-Net's choice, with the recipe's mirror axes in augmentation and prediction alike."""
        rotation, dummy_2d, initial_patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if self.recipe.sampling.mirror_axes is not None:
            # None, not an empty tuple, is nnU-Net's way to say "no mirroring" at prediction.
            mirror_axes = tuple(self.recipe.sampling.mirror_axes) or None
            self.inference_allowed_mirroring_axes = mirror_axes
        return rotation, dummy_2d, initial_patch_size, mirror_axes

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's loaders; the workers append the label-derived targets that the loss wants."""
        names = self.loss.target_names if isinstance(self.loss, CompoundLoss) else ()
        # Without deep supervision a target is one tensor and cannot carry more; the terms then compute their own.
        if names and self.enable_deep_supervision:
            append_to_pipelines(self, label_targets_for(self, names))
        return super().get_dataloaders()

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's datasets; the monitors' patches come from that of validation."""
        datasets: tuple[Any, Any] = super().get_tr_and_val_datasets()
        self.validation_cases = datasets[1]
        return datasets

    # ---------------------------------------------------------------------------------------------------- training

    def on_train_start(self) -> None:
        """Check everything that can be checked, then start nnU-Net's training."""
        go_on_or_refuse(self)
        if not self.was_initialized:
            self.initialize()
        folder = Path(self.output_folder)
        refuse_other_folds(self.recipe, Path(self.output_folder_base), folder)
        if self.local_rank == 0:
            require_usable_data(self)
        started_from = None
        if needs_weights(self.recipe) and self.loaded_checkpoint is None:
            started_from = start_from(self.network, self.recipe, self.fold, self._initial_weights)
        if self.local_rank == 0:
            clear_folder(self)
            write_recipe(self.recipe, folder)
            self.journal.cut_back(self.current_epoch + (self.progress is not None), lines=self.journal_lines)
            tensorboard = tensorboard_logger(folder, resume_epoch=self.current_epoch)
            if tensorboard is not None:
                tensorboard.update_config({"recipe": self.recipe.to_mapping()})
                self.logger.loggers.append(tensorboard)
        seed_or_restore(self)
        super().on_train_start()
        self.monitors = Monitors.of(self, self.validation_cases)
        if self.current_epoch < self.num_epochs and not self.stopped:
            self.report(start_events(self.resolved, self.loaded_checkpoint, self.choice, started_from))
        restore_rank(self)

    def run_training(self) -> None:
        """nnU-Net's loop; SIGTERM and SIGUSR1 end it behind a step with a checkpoint, for `--c` to go on there."""
        run_training(self)

    def report(self, events: list[Event]) -> None:
        """Say what happened in nnU-Net's log and in the journal, and do what it asks for."""
        for event in events:
            change = f": {event.before} -> {event.after}" if event.before is not None else f": {event.after}"
            self.print_to_log_file(f"[topo] {event.what}, {event.why}{change}")
            if self.local_rank == 0:
                self.journal.append_event(self.current_epoch, event.what, event.why, event.before, event.after)
            if event.action is not None:
                execute(self, event.action)

    def on_train_epoch_start(self) -> None:
        """Ask the controls, set the weights of the loss, then nnU-Net's own start."""
        for control in self.controls.values():
            self.report(control.start_epoch(self.current_epoch))
        add_due_noise(self)
        super().on_train_epoch_start()
        self.on_train_epoch_resume()
        self.epoch_record = {
            "phase": self.phases.phase,
            "lr": self.optimizer.param_groups[0]["lr"],
            "lr_multiplier": self.learning_rate.multiplier,
            "weights": self.phases.weights,
        }

    def on_train_epoch_resume(self) -> None:
        """Take up an epoch, also in its middle: what no checkpoint holds."""
        if isinstance(self.loss, CompoundLoss):
            self.loss.set_weights({name: weight for name, weight in self.phases.weights.items() if weight > 0})
        self.network.train()
        keep_frozen_statistics(self.network)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One step of nnU-Net's training, with the recipe's gradient clipping, skipped when something is not finite."""
        return train_step(self, batch)

    def to_device(self, target: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """The target, at one scale or at several, on the network's device."""
        if isinstance(target, list):
            return [tensor.to(self.device, non_blocking=True) for tensor in target]
        return target.to(self.device, non_blocking=True)

    def autocast(self) -> AbstractContextManager[Any]:
        """What nnU-Net runs its forward passes in."""
        return torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()

    def terms_of(self, loss: Tensor) -> dict[str, Tensor]:
        """Unweighted value of every active term of the last forward pass."""
        return dict(self.loss.values) if isinstance(self.loss, CompoundLoss) else {NNUNET_TERM: loss.detach()}

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """nnU-Net's own end; the means of the terms go into the epoch's record."""
        train_outputs = sound_steps(train_outputs)
        super().on_train_epoch_end(train_outputs)
        self.epoch_record["train"] = loss_record(train_outputs, list(self.terms), self.phases.weights)
        self.epoch_record["monitors"] = {"gradient_norm": gradient_norm_record(train_outputs)}

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's validation step, and what the record needs besides.

        Returns:
            nnU-Net's own outputs, `terms` (T,) unweighted and `valid_voxels` ().
        """
        # Counted first: stock overwrites the ignored voxels in place.
        valid = valid_voxels(batch["target"], self.label_manager.ignore_label, regions=self.label_manager.has_regions)
        outputs = super().validation_step(batch)
        self.terms = self.terms_of(torch.as_tensor(outputs["loss"]))
        return {**outputs, "terms": to_numpy(list(self.terms.values())), "valid_voxels": np.array(valid)}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """nnU-Net's own end; means of the terms, foreground, pseudo Dice and monitors go into the epoch's record."""
        super().on_validation_epoch_end(val_outputs)
        mend_moving_average(self.logger)
        self.epoch_record["validation"] = {
            **loss_record(val_outputs, list(self.terms), self.phases.weights),
            **pseudo_dice_record(self.logger),
            **foreground_record(val_outputs, overlapping=self.label_manager.has_regions),
        }
        self.monitors.measure_epoch(self)

    def on_epoch_end(self) -> None:
        """The epoch's line in the journal before nnU-Net saves a checkpoint that covers it, then the figure."""
        epoch = self.current_epoch
        started = self.logger.get_value("epoch_start_timestamps", step=-1)
        line = {"epoch": epoch, **self.epoch_record, "duration_s": time() - started}
        if self.local_rank == 0:
            self.journal.append_epoch(line)
            forward_epoch(self.logger.loggers, line)
        self.average.after_epoch(self.network, epoch)
        for name, control in self.controls.items():
            self.report(control.end_epoch(epoch, line))
            keep_if_best(self, name)
        super().on_epoch_end()
        if not math.isfinite(self._best_ema or 0.0):  # no epoch could be compared with NaN
            self._best_ema: float | None = None
        if self.local_rank == 0:
            self._draw()

    def on_train_end(self) -> None:
        """The average of the weights, where there is one, takes their place; then nnU-Net's own end."""
        self.kept_weights = KeptWeights()  # nothing can be rolled back any more
        if put_average_in_place(self) and self.local_rank == 0:
            self._draw()
        super().on_train_end()

    def _draw(self) -> None:
        try:
            draw_progress(
                self.journal.lines(),
                Path(self.output_folder) / "progress_topo.png",
                recipe_name=self.recipe.name,
                phases=self.phases.labels(),
                epochs_planned=self.num_epochs,
            )
        except (OSError, DataError) as error:  # a full disk or an edited journal must not end a training
            self.print_to_log_file(f"[topo] progress_topo.png was not drawn: {error}")

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's validation of the fold; then our metrics of it, in summary_topo.json."""
        super().perform_actual_validation(save_probabilities)
        if self.local_rank == 0:
            summarize_validation(self)

    # ------------------------------------------------------------------------------------------------- checkpoints

    def save_checkpoint(self, filename: str) -> None:
        """Write stock nnU-Net's checkpoint with one more key, atomically and without pickled objects; on every rank."""
        save(self, filename)

    def load_checkpoint(self, filename_or_checkpoint: str | Path | dict[str, Any]) -> None:
        """Take up a checkpoint; with `--c` it is the newest valid one of the fold."""
        load(self, filename_or_checkpoint)

    def topo_section(self) -> dict[str, Any]:
        """State of every part that has one: what a checkpoint keeps under `nnunet_topo`, in builtins and tensors."""
        return {
            "version": __version__,
            "recipe": self.recipe.to_mapping(),
            "controls": {name: control.state_dict() for name, control in self.controls.items()},
            "average": self.average.state_dict(),
            "kept_weights": self.kept_weights.state_dict(),
            "stopped": self.stopped,
            **resume_section(self),
        }

    def load_topo_section(self, section: dict[str, Any], file: str) -> None:
        """Give every part the state that `topo_section` took; there is none in a checkpoint of stock nnU-Net."""
        load_control_states(self.controls, section, file)
        self.average.load_state_dict(section.get("average", {}), self.network)
        self.kept_weights.load_state_dict(section.get("kept_weights", {}))
        self.stopped = bool(section.get("stopped", False))
        load_resume_section(self, section)


class nnUNetTrainerTopoProgressive(nnUNetTrainerTopo):
    """Three phases: Dice, then focal loss beside it, then the boundary."""

    default_recipe = "progressive"


class nnUNetTrainerTopoSurface(nnUNetTrainerTopo):
    """Stock nnU-Net's loss, later with terms for thin sheets."""

    default_recipe = "surface"


class nnUNetTrainerTopoVessel(nnUNetTrainerTopo):
    """Stock nnU-Net's loss, later with terms for trees of thin tubes."""

    default_recipe = "vessel"
