"""What the controls decided, done to the network, its optimiser and the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnunet_topo.control.action import (
    Action,
    AddNoise,
    ResetMomentum,
    RestoreBest,
    ScaleLearningRate,
    ScaleLossWeights,
    StopTraining,
)
from nnunet_topo.control.monitor import BestControl
from nnunet_topo.training.averaging import WeightAverage
from nnunet_topo.training.checkpoint import bare_network
from nnunet_topo.training.noise import add_noise

if TYPE_CHECKING:
    from torch import nn

    from nnunet_topo.training.trainers import nnUNetTrainerTopo

BEST_TOPO = "checkpoint_best_topo.pth"


def execute(trainer: nnUNetTrainerTopo, action: Action) -> None:
    """Do what a control asked for, the same on every rank.

    Args:
        trainer: initialised; changed in place.
        action: of one event.
    """
    match action:
        case ScaleLearningRate():
            trainer.learning_rate.scale(action.factor, action.decay_epochs)
        case ScaleLossWeights():
            trainer.phases.scale(action.factors)
        case AddNoise():
            trainer.noise_due.append(action)
        case ResetMomentum():
            trainer.optimizer.state.clear()
        case RestoreBest():
            trainer.kept_weights.restore(trainer.network, trainer.average)
            if action.reset_momentum:
                trainer.optimizer.state.clear()
        case StopTraining():
            trainer.stopped = True


def add_due_noise(trainer: nnUNetTrainerTopo) -> None:
    """Add the noise that was asked for since the last epoch began, right before the next one.

    Not at once: what the end of an epoch saves as the best, or as the final weights, has to be what was measured.
    """
    for action in trainer.noise_due:
        add_noise(trainer.network, action.std, action.seed, action.parameters)
    trainer.noise_due = []


def keep_if_best(trainer: nnUNetTrainerTopo, name: str) -> None:
    """Keep the weights, or write `checkpoint_best_topo.pth`, when the control `name` has just seen its best epoch.

    Called behind each control's `end_epoch`: those that come later may change the weights.
    """
    control = trainer.controls[name]
    if not (isinstance(control, BestControl) and control.improved):
        return
    if name == "kept_weights":
        trainer.kept_weights.keep(trainer.network, trainer.average)
    else:
        trainer.save_checkpoint(str(Path(trainer.output_folder) / BEST_TOPO))


class KeptWeights:
    """A copy of the best weights in the CPU's memory, for a rollback.

    Not read from `checkpoint_best_topo.pth`: that file follows another monitor, is newer than the checkpoint of a
    resumed run, and is missing under `--disable_checkpointing`. So the copy stands in the checkpoints itself.
    """

    def __init__(self) -> None:
        self._weights: dict[str, Tensor] = {}
        self._average: dict[str, Any] = {}

    def keep(self, network: nn.Module, average: WeightAverage) -> None:
        """Replace the copy by the network's weights as they are, and the average that belongs to them."""
        self._weights = _copied(bare_network(network).state_dict())
        self._average = _copied(average.state_dict())

    def restore(self, network: nn.Module, average: WeightAverage) -> None:
        """Put the copy back; without one, before the first best epoch, nothing happens."""
        if self._weights:
            bare_network(network).load_state_dict(self._weights)
            average.load_state_dict(self._average, network)

    def state_dict(self) -> dict[str, Any]:
        """The copies, empty when there are none."""
        return {"weights": self._weights, "average": self._average} if self._weights else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._weights = _copied(state.get("weights", {}))
        self._average = _copied(state.get("average", {}))


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return value.detach().to("cpu", copy=True) if torch.is_tensor(value) else value
