"""Averaged weights: stochastic weight averaging or an exponential moving average, for the final checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nnunet_topo.control import Event
from nnunet_topo.recipe import Recipe
from nnunet_topo.schedule.averaging import averages_after_epoch, averages_after_step
from nnunet_topo.training.checkpoint import bare_network
from nnunet_topo.training.optimization import batch_norm_layers, keep_frozen_statistics

if TYPE_CHECKING:
    from nnunet_topo.training.trainers import nnUNetTrainerTopo

_BATCH_NORM_BATCHES = 50


def put_average_in_place(trainer: nnUNetTrainerTopo) -> bool:
    """Let a trainer behind its last epoch hold the average of its weights, and say so in that epoch's journal.

    Returns:
        Whether there was an average.
    """
    if not trainer.average.finish(trainer.network, _training_images(trainer), trainer.autocast()):
        return False
    trainer.current_epoch -= 1  # as nnU-Net does for the last checkpoint: the end belongs to the last epoch
    trainer.report([trainer.average.event()])
    trainer.current_epoch += 1
    return True


def _training_images(trainer: nnUNetTrainerTopo) -> Iterator[Tensor]:
    """Images of some training batches, drawn when asked for, on the trainer's device."""
    for _ in range(min(_BATCH_NORM_BATCHES, trainer.num_iterations_per_epoch)):
        yield next(trainer.dataloader_train)["data"].to(trainer.device)


class WeightAverage:
    """The recipe's average of the network's weights, kept beside them until the run ends.

    `swa` takes the weights at the end of every `every`-th epoch from `start` on, each with the same weight; `ema` those
    after every step, the newest with weight 1 - decay. The trained weights themselves never change by it.

    Args:
        recipe: its `averaging` is followed.

    Attributes:
        raw_weights: the trained weights by name once the network holds their average, else None.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.raw_weights: dict[str, Tensor] | None = None
        self._average: AveragedModel | None = None

    @property
    def count(self) -> int:
        """How many weights went into the average; 0 before it starts."""
        return 0 if self._average is None else int(self._average.n_averaged)

    def after_step(self, network: nn.Module, epoch: int) -> None:
        """Take the weights in after a step of `epoch` where the recipe wants it."""
        if averages_after_step(self.recipe, epoch):
            self._update(network)

    def after_epoch(self, network: nn.Module, epoch: int) -> None:
        """Take the weights in after `epoch` where the recipe wants it."""
        if averages_after_epoch(self.recipe, epoch):
            self._update(network)

    def _update(self, network: nn.Module) -> None:
        bare = bare_network(network)
        if self._average is None:
            self._average = self._empty(bare)
        self._average.update_parameters(bare)

    def _empty(self, bare: nn.Module) -> AveragedModel:
        decay = self.recipe.averaging.decay  # of ema alone; torch's default is the mean of swa
        return AveragedModel(bare, multi_avg_fn=None if decay is None else get_ema_multi_avg_fn(decay))

    def finish(self, network: nn.Module, batches: Iterable[Tensor], autocast: AbstractContextManager[Any]) -> bool:
        """Put the average into the network and keep the trained weights as `raw_weights`.

        Statistics of batch-norm layers belong to the trained weights, so they are taken anew.

        Args:
            network: changed in place.
            batches: (B, C, X, Y[, Z]) training images on the network's device; read only when there is a batch norm.
            autocast: as in training.

        Returns:
            Whether there was an average; without one nothing happens.
        """
        if self._average is None or self.raw_weights is not None:
            return False
        bare = bare_network(network)
        self.raw_weights = {name: tensor.detach().cpu().clone() for name, tensor in bare.state_dict().items()}
        bare.load_state_dict(self._average.module.state_dict())
        recompute_batch_norm(bare, batches, autocast)
        return True

    def event(self) -> Event:
        """What `finish` did, for the journal."""
        kind = self.recipe.averaging.kind
        return Event("averaged", f"the {kind} of {self.count} weights takes the place of the trained ones", None, kind)

    def state_dict(self) -> dict[str, Any]:
        """Average and count, or in a final checkpoint, whose `network_weights` are the average, the trained weights."""
        if self.raw_weights is not None:
            return {"count": self.count, "raw_weights": self.raw_weights}
        if self._average is None:
            return {}
        return {"count": self.count, "weights": dict(self._average.module.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any], network: nn.Module) -> None:
        """Take up what `state_dict` gave.

        Args:
            state: empty for a run whose average had not started.
            network: holds the weights of the same checkpoint.
        """
        self._average, self.raw_weights = None, state.get("raw_weights")
        if not state:
            return
        bare = bare_network(network)
        self._average = self._empty(bare)
        if "weights" in state:
            self._average.module.load_state_dict(state["weights"])
        self._average.n_averaged.fill_(int(state["count"]))


def recompute_batch_norm(network: nn.Module, batches: Iterable[Tensor], autocast: AbstractContextManager[Any]) -> None:
    """Replace the running statistics of batch-norm layers by those of some batches; frozen layers keep theirs.

    Args:
        network: bare; its training mode is put back.
        batches: (B, C, X, Y[, Z]) on the network's device, not read when there is nothing to do.
        autocast: as in training.
    """
    layers = [layer for layer, frozen in batch_norm_layers(network) if layer.track_running_stats and not frozen]
    if not layers:
        return
    was_training, momenta = network.training, [layer.momentum for layer in layers]
    network.train()
    keep_frozen_statistics(network)
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's way to ask for the plain mean over all batches
    with torch.no_grad(), autocast:
        for batch in batches:
            network(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.train(was_training)
