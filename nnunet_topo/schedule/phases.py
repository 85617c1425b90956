"""Loss weights over epochs."""

from __future__ import annotations

import bisect

from nnunet_topo.recipe import Recipe


def phase_index_at(recipe: Recipe, epoch: int) -> int:
    """Index of the phase that an epoch lies in.

    Args:
        recipe: a valid recipe.
        epoch: >= 0, counted from 0; past the end it stays in the last phase.
    """
    return max(0, bisect.bisect_right(recipe.phase_starts(), epoch) - 1)


def weights_at(recipe: Recipe, epoch: int) -> dict[str, float]:
    """Weight of every term that the recipe names, 0.0 for those that rest.

    A phase acts from its start at once, or by a linear ramp: the weights at the start are still those of the phase
    before, and `ramp_epochs` later the phase's own.

    Args:
        recipe: a valid recipe.
        epoch: >= 0, counted from 0.
    """
    index = phase_index_at(recipe, epoch)
    phase = recipe.phases[index]
    current = {term: phase.weights.get(term, 0.0) for term in recipe.terms()}
    passed = epoch - recipe.phase_starts()[index]
    if passed >= phase.ramp_epochs or index == 0:
        return current
    before, t = recipe.phases[index - 1].weights, passed / phase.ramp_epochs
    return {term: before.get(term, 0.0) + t * (new - before.get(term, 0.0)) for term, new in current.items()}


def phase_begins_at(recipe: Recipe, epoch: int) -> bool:
    """Whether an epoch is the first of a later phase than the first.

    Args:
        recipe: a valid recipe.
        epoch: >= 0, counted from 0.
    """
    return epoch > 0 and epoch in recipe.phase_starts()
