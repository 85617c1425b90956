"""Learning rate over epochs."""

from __future__ import annotations

from nnunet_topo.errors import ConfigError
from nnunet_topo.recipe import Recipe

AVAILABLE = ("poly", "constant")
_POLY_EXPONENT = 0.9


def learning_rate_at(recipe: Recipe, epoch: int) -> float:
    """Learning rate of an epoch.

    During a warm-up of W epochs it is lr * (epoch + 1) / W; behind it, with n = epochs - W and e = epoch - W, `poly`
    is nnU-Net's lr * (1 - e / n) ** 0.9, to the bit, and `constant` is lr.

    Args:
        recipe: a valid recipe.
        epoch: >= 0, counted from 0; past the last it counts as `epochs` (poly: 0), never complex.

    Raises:
        ConfigError: a schedule that this version can't run.
    """
    schedule, lr = recipe.lr_schedule, recipe.optimizer.lr
    if schedule.name not in AVAILABLE:
        raise ConfigError(
            f"lr_schedule.name: expected {' or '.join(AVAILABLE)}, got {schedule.name!r}, which is not available yet. "
            f"recipe '{recipe.name}'. Choose one of those."
        )
    epoch, warmup = min(epoch, recipe.epochs), schedule.warmup_epochs
    if epoch < warmup:
        return lr * (epoch + 1) / warmup
    if schedule.name == "constant":
        return lr
    decayed: float = lr * (1 - (epoch - warmup) / (recipe.epochs - warmup)) ** _POLY_EXPONENT
    return decayed
