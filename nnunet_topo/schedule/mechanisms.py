"""What a recipe asks for beyond what the trainers of this version can run."""

from __future__ import annotations

from nnunet_topo.losses import PLANNED_TERMS
from nnunet_topo.recipe import Recipe


def unavailable_mechanisms(recipe: Recipe) -> list[str]:
    """Settings that no trainer can run yet, as `dotted.key: value`; empty when the recipe can be trained."""
    return [
        f"phases.{index}.weights.{term}: {weight}"
        for index, phase in enumerate(recipe.phases)
        for term, weight in phase.weights.items()
        if term in PLANNED_TERMS and "class" not in recipe.losses.get(term, {}) and weight > 0
    ]
