"""What a trainer puts where, and what a training step waits for: seen on torch's device `meta`, which has no values."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunet_topo.losses import NNUNET_TERM
from nnunet_topo.training import step
from nnunet_topo.training.monitors import Monitors
from nnunet_topo.training.trainers import nnUNetTrainerTopo

META = torch.device("meta")
SHORT: dict[str, Any] = {"name": "short", "epochs": 1, "iterations_per_epoch": 1, "validation_iterations": 1}
NNUNET = {**SHORT, "phases": [{"from": 0, "weights": {NNUNET_TERM: 1.0}}]}
OWN = {"ce": 1.0, "dice": 1.0, "medial_surface_recall": 0.5, "separation": 0.2, "connectivity": 0.1, "boundary": 0.1}


class Copies(TorchDispatchMode):
    """Copies from one device to another that are waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        if len({tensor.device for tensor in tensors}) > 1 and not (kwargs or {}).get("non_blocking"):
            self.waited_for.append(str(function))
        return result


class Weighted(nn.Module):
    """A user's loss with a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor([1.0, 2.0]))

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, labels[:, 0].long(), self.weights)


def on_meta(trainer: nnUNetTrainerTopo) -> nnUNetTrainerTopo:
    """The trainer, initialised with its network there."""
    trainer.device = META
    trainer.initialize()
    return trainer


# With an ignore label nnU-Net's own loss reads a number off the device at every scale.
@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("plain", {NNUNET_TERM: 1.0}),
        ("classes", {NNUNET_TERM: 1.0, "separation": 0.2}),
        ("ignore", OWN),
        ("regions", OWN),
    ],
)
def test_a_step_waits_for_one_transfer(make_trainer, monkeypatch, kind: str, weights: dict[str, float]) -> None:
    recipe = {**SHORT, "phases": [{"from": 0, "weights": weights}]}
    trainer = on_meta(make_trainer(nnUNetTrainerTopo, kind, recipe=recipe))
    trainer.dataloader_train, _ = trainer.get_dataloaders()
    trainer.on_train_epoch_start()
    transfers = []

    def to_numpy(values: list[torch.Tensor]) -> np.ndarray:
        transfers.append({value.device for value in values})
        return np.ones(len(values), np.float32)

    monkeypatch.setattr(step, "to_numpy", to_numpy)
    batch = next(trainer.dataloader_train)
    with Copies() as copies:
        outputs = trainer.train_step(batch)
    assert transfers == [{META}]
    assert copies.waited_for == []
    assert not outputs["skipped"]
    assert not any(value.requires_grad for value in trainer.terms.values())  # or the graph would outlive the step


def test_tensors_of_a_users_term_are_where_the_network_is(make_trainer, monkeypatch) -> None:
    mine = ModuleType("my_losses")
    mine.Weighted = Weighted  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_losses", mine)
    recipe = {
        **SHORT,
        "losses": {"mine": {"class": "my_losses:Weighted"}},
        "phases": [{"from": 0, "weights": {"mine": 1.0, "dice": 1.0}}],
    }
    trainer = on_meta(make_trainer(nnUNetTrainerTopo, recipe=recipe))
    assert [buffer.device for buffer in trainer.loss.buffers()] == [META]
    trainer.get_dataloaders()
    monitors = Monitors.of(trainer, trainer.validation_cases)
    assert [buffer.device for buffer in monitors.terms["mine"].buffers()] == [META]


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter:UserWarning")
def test_counters_of_adamw_come_back_on_the_cpu(make_trainer) -> None:
    """On a GPU, where torch would not put them itself, every parameter of every step would be waited for."""
    recipe = {**NNUNET, "optimizer": {"name": "adamw", "lr": 1e-3}}
    trained = make_trainer(nnUNetTrainerTopo, recipe=recipe)
    trained.run_training()
    trainer = on_meta(make_trainer(nnUNetTrainerTopo, continue_training=True, recipe=recipe))
    trainer.load_checkpoint(str(Path(trained.output_folder) / "checkpoint_final.pth"))
    states = list(trainer.optimizer.state.values())
    assert {state["step"].device.type for state in states} == {"cpu"}
    assert {state["exp_avg"].device for state in states} == {META}
    assert {float(state["step"]) for state in states} == {1.0}
