"""The trainers that `nnUNetv2_train -tr` finds: nnU-Net's hooks, each delegating.

They keep nnU-Net's preprocessing, augmentation, network, GPU training and prediction as they are. A new experiment is a
recipe, not a class; a subclass only names another default.
"""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.configuration import default_num_processes
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_topo import __version__
from nnunet_topo.control import Control, Event, LearningRateControl, PhaseControl, load_control_states
from nnunet_topo.data.labels import require_declared_labels
from nnunet_topo.errors import ConfigError, DataError, show_without_traceback
from nnunet_topo.losses import NNUNET_TERM, CompoundLoss
from nnunet_topo.recipe import Recipe
from nnunet_topo.training.checkpoint import (
    TOPO_KEY,
    checkpoint_of,
    load_weights,
    read_checkpoint,
    restore,
    write_checkpoint,
)
from nnunet_topo.training.figure import draw_progress
from nnunet_topo.training.journal import Journal
from nnunet_topo.training.loggers import forward_epoch, tensorboard_logger
from nnunet_topo.training.loss import build_loss, deep_supervision_weights
from nnunet_topo.training.optimization import (
    EpochLearningRate,
    build_optimizer,
    freeze_parameters,
    keep_frozen_statistics,
)
from nnunet_topo.training.record import foreground_record, loss_record, to_numpy, valid_voxels
from nnunet_topo.training.resolution import (
    ResolvedRecipe,
    against_checkpoint,
    refuse_other_folds,
    refuse_unavailable,
    resolve_recipe,
    start_events,
    write_recipe,
)
from nnunet_topo.training.start_from import weights_to_start_from
from nnunet_topo.training.targets import AppendLabelTargets


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
        refuse_unavailable(resolved.recipe)
        if resolved.recipe.seed is not None:
            _seed(resolved.recipe.seed)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.journal = Journal(Path(self.output_folder) / "topo_journal.jsonl")
        self.loaded_checkpoint: str | None = None
        self.epoch_record: dict[str, Any] = {}
        self.terms: dict[str, Tensor] = {}
        self._follow(resolved)

    def _follow(self, resolved: ResolvedRecipe) -> None:
        """Take a recipe up: nnU-Net's own settings from it, and the controls."""
        recipe = resolved.recipe
        dimensions = len(self.configuration_manager.patch_size)
        for axis in recipe.sampling.mirror_axes or ():
            if axis >= dimensions:
                raise ConfigError(
                    f"sampling.mirror_axes: expected axes 0..{dimensions - 1} for configuration "
                    f"'{self.configuration_name}', got {axis}. recipe '{recipe.name}'. Leave it out."
                )
        self.resolved = resolved
        self.initial_lr = recipe.optimizer.lr
        self.weight_decay = recipe.optimizer.weight_decay
        self.oversample_foreground_percent = recipe.sampling.foreground
        self.probabilistic_oversampling = recipe.sampling.probabilistic
        self.num_iterations_per_epoch = recipe.iterations_per_epoch
        self.num_val_iterations_per_epoch = recipe.validation_iterations
        self.num_epochs = recipe.epochs
        self.save_every = recipe.checkpoint_every
        self.phases = PhaseControl(recipe)
        self.learning_rate = LearningRateControl(recipe)
        self.controls: dict[str, Control] = {"phases": self.phases, "learning_rate": self.learning_rate}

    @property
    def recipe(self) -> Recipe:
        """The recipe of this run."""
        return self.resolved.recipe

    # ---------------------------------------------------------------------------------------------------- building

    def initialize(self) -> None:
        """nnU-Net's initialisation; the loggers get the recipe."""
        super().initialize()
        self.logger.update_config({TOPO_KEY: {"version": __version__, "recipe": self.recipe.to_mapping()}})
        self._initial_weights = _fingerprint(self.network) if self.recipe.start_from else 0.0

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, EpochLearningRate]:
        """The recipe's optimiser over its trainable parameters, and the schedule that sets its learning rate."""
        frozen = freeze_parameters(self.network, self.recipe)
        if frozen:
            self.print_to_log_file(f"trainable: {frozen} parameter tensors are frozen")
        optimizer = build_optimizer(self.network, self.recipe)
        return optimizer, EpochLearningRate(optimizer, self.learning_rate)

    def _build_loss(self) -> nn.Module:
        scales = self._get_deep_supervision_scales()
        compiled = self._do_i_compile()
        return build_loss(
            self.recipe,
            self.label_manager,
            spacing_mm=self._patch_spacing(),
            batch_dice=self.configuration_manager.batch_dice,
            scale_weights=scales and deep_supervision_weights(len(scales), is_ddp=self.is_ddp, compiled=compiled),
            is_ddp=self.is_ddp,
            stock=super()._build_loss,
        )

    def _patch_spacing(self) -> tuple[float, ...]:
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
            transform = AppendLabelTargets(
                names,
                ignore_label=self.label_manager.ignore_label,
                regions=self.label_manager.has_regions,
                spacing=self._patch_spacing(),
                structures=max(1, self.label_manager.num_segmentation_heads - 1),
            )
            # Stock calls both through self. They are static, hence the attributes of the instance.
            for pipeline in ("get_training_transforms", "get_validation_transforms"):
                setattr(self, pipeline, partial(_appended, getattr(type(self), pipeline), transform))
        return super().get_dataloaders()

    # ---------------------------------------------------------------------------------------------------- training

    def on_train_start(self) -> None:
        """Check everything that can be checked, then start nnU-Net's training."""
        if not self.was_initialized:
            self.initialize()
        fold_folder = Path(self.output_folder)
        refuse_other_folds(self.recipe, Path(self.output_folder_base), fold_folder)
        if self.local_rank == 0:
            require_declared_labels(
                self.preprocessed_dataset_folder, self.dataset_json, processes=default_num_processes
            )
        started_from = self._start_from() if self.recipe.start_from and self.loaded_checkpoint is None else None
        if self.local_rank == 0:
            write_recipe(self.recipe, fold_folder)
            self.journal.cut_back(self.current_epoch)
            tensorboard = tensorboard_logger(fold_folder, resume_epoch=self.current_epoch)
            if tensorboard is not None:
                tensorboard.update_config({"recipe": self.recipe.to_mapping()})
                self.logger.loggers.append(tensorboard)
        if self.recipe.seed is not None:
            # Epoch and rank too: a resumed run must not repeat the first epochs' patches, nor a rank another's.
            _seed(
                int(
                    np.random.SeedSequence([self.recipe.seed, self.current_epoch, self.local_rank]).generate_state(1)[0]
                )
            )
        super().on_train_start()
        if self.current_epoch < self.num_epochs:
            self._report(start_events(self.resolved, resumed_from=self.loaded_checkpoint, started_from=started_from))

    def _start_from(self) -> Path:
        if _fingerprint(self.network) != self._initial_weights:
            raise ConfigError(
                f"start_from: expected the only source of weights, got '{self.recipe.start_from}' besides "
                "-pretrained_weights. Drop one of them."
            )
        weights, file = weights_to_start_from(str(self.recipe.start_from), self.fold)
        load_weights(self.network, weights, file)
        return file

    def _report(self, events: list[Event]) -> None:
        """Say what happened in nnU-Net's log and in the journal."""
        for event in events:
            change = f": {event.before} -> {event.after}" if event.before is not None else f": {event.after}"
            self.print_to_log_file(f"[topo] {event.what}, {event.why}{change}")
            if self.local_rank == 0:
                self.journal.append_event(self.current_epoch, event.what, event.why, event.before, event.after)

    def on_train_epoch_start(self) -> None:
        """Ask the controls, set the weights of the loss, then nnU-Net's own start."""
        for control in self.controls.values():
            self._report(control.start_epoch(self.current_epoch))
        if isinstance(self.loss, CompoundLoss):
            self.loss.set_weights({name: weight for name, weight in self.phases.weights.items() if weight > 0})
        super().on_train_epoch_start()
        keep_frozen_statistics(self.network)
        self.epoch_record = {
            "phase": self.phases.phase,
            "lr": self.optimizer.param_groups[0]["lr"],
            "weights": self.phases.weights,
        }

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One step of nnU-Net's training, with the recipe's gradient clipping.

        Returns:
            `loss` () and `terms` (T,) unweighted, as arrays.
        """
        data = batch["data"].to(self.device, non_blocking=True)
        target = self._to_device(batch["target"])
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self.loss(self.network(data), target)
        scaler, clip = self.grad_scaler, self.recipe.gradient_clip
        (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        if scaler is not None:
            scaler.step(self.optimizer)
            scaler.update()
        else:
            self.optimizer.step()
        self.terms = self._terms(loss)
        loss_and_terms = to_numpy([loss, *self.terms.values()])
        return {"loss": loss_and_terms[0, ...], "terms": loss_and_terms[1:]}

    def _to_device(self, target: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        if isinstance(target, list):
            return [tensor.to(self.device, non_blocking=True) for tensor in target]
        return target.to(self.device, non_blocking=True)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()

    def _terms(self, loss: Tensor) -> dict[str, Tensor]:
        """Unweighted value of every active term of the last forward pass."""
        return dict(self.loss.values) if isinstance(self.loss, CompoundLoss) else {NNUNET_TERM: loss}

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """nnU-Net's own end; the means of the terms go into the epoch's record."""
        super().on_train_epoch_end(train_outputs)
        self.epoch_record["train"] = loss_record(train_outputs, list(self.terms), self.phases.weights)

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's validation step, and what the record needs besides.

        Returns:
            nnU-Net's own outputs, `terms` (T,) unweighted and `valid_voxels` ().
        """
        # Counted first: stock overwrites the ignored voxels in place.
        valid = valid_voxels(batch["target"], self.label_manager.ignore_label, regions=self.label_manager.has_regions)
        outputs = super().validation_step(batch)
        self.terms = self._terms(torch.as_tensor(outputs["loss"]))
        return {**outputs, "terms": to_numpy(list(self.terms.values())), "valid_voxels": np.array(valid)}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """nnU-Net's own end; means of the terms, foreground and pseudo Dice go into the epoch's record."""
        super().on_validation_epoch_end(val_outputs)
        self.epoch_record["validation"] = {
            **loss_record(val_outputs, list(self.terms), self.phases.weights),
            "pseudo_dice": self.logger.get_value("dice_per_class_or_region", step=-1),
            "mean_pseudo_dice": self.logger.get_value("mean_fg_dice", step=-1),
            "ema_pseudo_dice": self.logger.get_value("ema_fg_dice", step=-1),
            **foreground_record(val_outputs, overlapping=self.label_manager.has_regions),
        }

    def on_epoch_end(self) -> None:
        """The epoch's line in the journal before nnU-Net saves a checkpoint that covers it, then the figure."""
        epoch = self.current_epoch
        started = self.logger.get_value("epoch_start_timestamps", step=-1)
        line = {"epoch": epoch, **self.epoch_record, "duration_s": time() - started}
        if self.local_rank == 0:
            self.journal.append_epoch(line)
            forward_epoch(self.logger.loggers, line)
        for control in self.controls.values():
            self._report(control.end_epoch(epoch, line))
        super().on_epoch_end()
        if self.local_rank == 0:
            self._draw()

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

    # ------------------------------------------------------------------------------------------------- checkpoints

    def save_checkpoint(self, filename: str) -> None:
        """Write stock nnU-Net's checkpoint with one more key, atomically and without pickled objects."""
        if self.local_rank != 0:
            return
        if self.disable_checkpointing:
            self.print_to_log_file("No checkpoint written, checkpointing is disabled")
            return
        section = {
            "version": __version__,
            "recipe": self.recipe.to_mapping(),
            "controls": {name: control.state_dict() for name, control in self.controls.items()},
        }
        write_checkpoint(checkpoint_of(self, section), filename)

    def load_checkpoint(self, filename_or_checkpoint: str | Path | dict[str, Any]) -> None:
        """Take up a checkpoint; its recipe wins over one that nobody named.

        Args:
            filename_or_checkpoint: a file, or what `read_checkpoint` gave.

        Raises:
            CheckpointError: unreadable, unsafe, of another network, or with `--c` of another recipe.
        """
        if isinstance(filename_or_checkpoint, dict):
            file, checkpoint = "a checkpoint in memory", filename_or_checkpoint
        else:
            file, checkpoint = str(filename_or_checkpoint), read_checkpoint(filename_or_checkpoint, self.device)
        saved_recipe = checkpoint.get(TOPO_KEY, {}).get("recipe")
        resolved = against_checkpoint(self.resolved, saved_recipe, continue_training=self.continue_training, file=file)
        if not self.was_initialized:
            refuse_unavailable(resolved.recipe)
            self._follow(resolved)
            self.initialize()
        restore(self, checkpoint, file)
        load_control_states(self.controls, checkpoint.get(TOPO_KEY, {}), file)
        self.loaded_checkpoint = file


class nnUNetTrainerTopoProgressive(nnUNetTrainerTopo):
    """Three phases: Dice, then focal loss beside it, then the boundary."""

    default_recipe = "progressive"


def _appended(transforms: Any, transform: BasicTransform, *args: Any, **kwargs: Any) -> Any:
    pipeline = transforms(*args, **kwargs)
    pipeline.transforms.append(transform)
    return pipeline


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _fingerprint(network: nn.Module) -> float:
    """A number that changes when the weights do."""
    with torch.no_grad():
        return float(sum(parameter.double().abs().sum() for parameter in network.parameters()))
