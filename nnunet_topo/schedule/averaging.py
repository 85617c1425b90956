"""When the weights go into their average."""

from __future__ import annotations

from nnunet_topo.recipe import Recipe, epoch_of


def averaging_start(recipe: Recipe) -> int | None:
    """First epoch whose weights are averaged; None without averaging, or when the run ends before."""
    averaging = recipe.averaging
    if averaging.start is None:
        return None
    start = epoch_of(averaging.start, recipe.epochs)
    return start if start < recipe.epochs else None


def averages_after_step(recipe: Recipe, epoch: int) -> bool:
    """Whether the weights behind every optimiser step of an epoch go into the average (`ema`).

    Args:
        recipe: a valid recipe.
        epoch: >= 0, counted from 0.
    """
    start = averaging_start(recipe)
    return recipe.averaging.kind == "ema" and start is not None and epoch >= start


def averages_after_epoch(recipe: Recipe, epoch: int) -> bool:
    """Whether the weights at the end of an epoch go into the average (`swa`): every `every`-th from its start on.

    Args:
        recipe: a valid recipe.
        epoch: >= 0, counted from 0.
    """
    start, every = averaging_start(recipe), recipe.averaging.every
    return every is not None and start is not None and epoch >= start and (epoch - start) % every == 0
