"""One step of nnU-Net's training that skips the update when loss or gradient is not finite."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nnunet_topo.training.guards import poisoned, update_weights
from nnunet_topo.training.record import to_numpy

if TYPE_CHECKING:
    from nnunet_topo.training.trainers import nnUNetTrainerTopo


def train_step(trainer: nnUNetTrainerTopo, batch: dict[str, Any]) -> dict[str, Any]:
    """Forward, backward, the recipe's gradient clipping, and the update if it may be.

    Loss, terms and norm come from the device in one transfer, as in stock nnU-Net, only before the update instead of
    after it: nothing else is waited for, and the update runs while the next batch is fetched.

    Args:
        trainer: its network, optimiser and `terms` change.
        batch: nnU-Net's `data`, `target` and `keys`.

    Returns:
        `loss` (), `gradient_norm` () before clipping, `terms` (T,) unweighted and `skipped` (), as arrays.
    """
    data = batch["data"].to(trainer.device, non_blocking=True)
    target = trainer.to_device(batch["target"])
    trainer.optimizer.zero_grad(set_to_none=True)
    with trainer.autocast():
        loss = trainer.loss(trainer.network(data), target)
    start = poisoned(loss) if trainer.is_ddp else loss
    scaler, clip = trainer.grad_scaler, trainer.recipe.gradient_clip or math.inf  # x * 1.0 for inf: exact
    (start if scaler is None else scaler.scale(start)).backward()
    if scaler is not None:
        scaler.unscale_(trainer.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(trainer.network.parameters(), clip)
    trainer.terms = trainer.terms_of(loss)
    numbers = to_numpy([loss, norm, *trainer.terms.values()])
    terms = dict(zip(trainer.terms, numbers[2:].tolist(), strict=True))
    fault = trainer.guard.examine(float(numbers[0]), float(numbers[1]), terms, batch.get("keys", ()), scaler)
    update_weights(trainer.optimizer, scaler, skip=fault is not None)
    if fault is None:
        trainer.average.after_step(trainer.network, trainer.current_epoch)
    else:
        trainer.report([fault])
    skipped = np.array(fault is not None)
    return {"loss": numbers[0, ...], "gradient_norm": numbers[1, ...], "terms": numbers[2:], "skipped": skipped}
