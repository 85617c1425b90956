"""Learning rate over epochs."""

from __future__ import annotations

import math

from nnunet_topo.recipe import Recipe
from nnunet_topo.schedule.averaging import averaging_start

_POLY_EXPONENT = 0.9


def learning_rate_at(recipe: Recipe, epoch: int, *, reductions: int = 0) -> float:
    """Learning rate of an epoch.

    During a warm-up of W epochs it is lr * (epoch + 1) / W; behind it, with n = epochs - W and e = epoch - W:

    - `poly`: nnU-Net's lr * (1 - e / n) ** 0.9, to the bit.
    - `constant`: lr.
    - `plateau`: lr * factor ** reductions, not below minimum_lr.
    - `cosine_restarts`: from lr to minimum_lr along half a cosine over first_cycle_epochs, then anew, each cycle
      cycle_factor times as long as the one before.

    From the start of `swa` averaging with a learning rate of its own, half a cosine of anneal_epochs leads from the
    schedule's value at that start to averaging.lr, where it stays.

    Args:
        recipe: a valid recipe.
        epoch: >= 0, counted from 0; past the last it counts as `epochs` (poly: 0), never complex.
        reductions: >= 0, how often the plateau schedule has reduced it so far.

    Returns:
        A finite number >= 0.
    """
    epoch, start, target = min(epoch, recipe.epochs), averaging_start(recipe), recipe.averaging.lr
    if start is not None and target is not None:
        start = max(start, recipe.lr_schedule.warmup_epochs)
        if epoch >= start:
            anneal = recipe.averaging.anneal_epochs or 0
            share = _half_cosine((epoch - start) / anneal) if epoch - start < anneal else 0.0
            return target + (_scheduled(recipe, start, reductions) - target) * share
    return _scheduled(recipe, epoch, reductions)


def _scheduled(recipe: Recipe, epoch: int, reductions: int) -> float:
    schedule, lr = recipe.lr_schedule, recipe.optimizer.lr
    warmup, lowest = schedule.warmup_epochs, min(schedule.minimum_lr or 0.0, lr)
    if epoch < warmup:
        return lr * (epoch + 1) / warmup
    if schedule.name == "poly":
        decayed: float = lr * (1 - (epoch - warmup) / (recipe.epochs - warmup)) ** _POLY_EXPONENT
        return decayed
    if schedule.factor is not None:
        return max(lowest, lr * schedule.factor**reductions)
    if schedule.first_cycle_epochs is not None:
        passed, cycle = epoch - warmup, schedule.first_cycle_epochs
        while passed >= cycle:
            passed, cycle = passed - cycle, cycle * (schedule.cycle_factor or 1)
        return lowest + (lr - lowest) * _half_cosine(passed / cycle)
    return lr


def _half_cosine(share: float) -> float:
    """From 1 at share 0 to 0 at share 1."""
    return (1 + math.cos(math.pi * share)) / 2
