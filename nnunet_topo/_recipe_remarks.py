"""What is valid in a recipe but can hardly be meant."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nnunet_topo._recipe_sections import epoch_of

if TYPE_CHECKING:
    from nnunet_topo.recipe import Recipe


def remarks(recipe: Recipe) -> list[str]:
    """What is valid but can hardly be meant: mechanisms that never act, idle loss parameters."""
    return [*_late_starts(recipe), *_long_patience(recipe), *_without_effect(recipe), *_idle_losses(recipe)]


def _late_starts(recipe: Recipe) -> Iterator[str]:
    starts = {"noise.start": recipe.noise.start if recipe.noise else None, "averaging.start": recipe.averaging.start}
    for key, start in starts.items():
        epoch = -1 if start is None else epoch_of(start, recipe.epochs)
        if epoch >= recipe.epochs:
            yield f"{key}: epoch {epoch} is past the last of {recipe.epochs} epochs, it never acts"
    last = recipe.phases[-1]
    end = epoch_of(last.start, recipe.epochs) + last.ramp_epochs
    if last.ramp_epochs and end >= recipe.epochs:
        yield (
            f"phases.{len(recipe.phases) - 1}.ramp_epochs: the ramp ends at epoch {end}, after the last of "
            f"{recipe.epochs} epochs: its weights are never reached"
        )


def _long_patience(recipe: Recipe) -> Iterator[str]:
    """Counts start anew with each phase, so a patience must fit into one."""
    longest = max(end - start for start, end in itertools.pairwise((*recipe.phase_starts(), recipe.epochs)))
    # What stands before the first epoch that counts as bad: the best itself, which may be that of a former phase.
    best = 1 if len(recipe.phases) == 1 else 0
    needed = {
        "lr_schedule.patience": (recipe.lr_schedule.patience, recipe.lr_schedule.warmup_epochs * best + 2),
        "plateau.patience": (recipe.plateau.patience if recipe.plateau else None, 1),
        "rollback.degradation_epochs": (recipe.rollback.degradation_epochs if recipe.rollback else None, best),
        "early_stopping.patience": (recipe.early_stopping.patience if recipe.early_stopping else None, best),
    }
    for key, (patience, more) in needed.items():
        if patience is not None and patience + more > longest:
            yield f"{key}: {patience} epochs do not fit into a phase (the longest has {longest}), it never acts"


def _without_effect(recipe: Recipe) -> Iterator[str]:
    rollback, plateau, schedule = recipe.rollback, recipe.plateau, recipe.lr_schedule
    if rollback is not None and rollback.degradation_epochs is None and rollback.catastrophic is None:
        yield "rollback: degradation_epochs and catastrophic are both null, it never acts"
    if plateau is not None and not plateau.actions:
        yield "plateau.actions: empty, a plateau is noticed and nothing is done"
    if plateau is not None and "learning_rate" in plateau.actions and plateau.max_lr_scale == 1:
        yield "plateau.max_lr_scale: at 1 the learning rate is never raised"
    single = all(sum(weight > 0 for weight in phase.weights.values()) < 2 for phase in recipe.phases)
    if plateau is not None and "loss_weights" in plateau.actions and single:
        yield "plateau.actions: loss_weights needs a phase with two terms, it never acts"
    if schedule.minimum_lr is not None and schedule.minimum_lr >= recipe.optimizer.lr:
        yield f"lr_schedule.minimum_lr: {schedule.minimum_lr:g} is not below optimizer.lr, the schedule is constant"


def _idle_losses(recipe: Recipe) -> Iterator[str]:
    weighted = {*recipe.active_terms(), *(recipe.monitor.reference_weights or {})}
    for term in recipe.losses:
        if term not in weighted:
            yield f"losses.{term}: no phase gives this term a weight"
