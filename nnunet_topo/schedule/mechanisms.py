"""What a recipe asks for beyond what the trainers of this version can run."""

from __future__ import annotations

from nnunet_topo.losses import PLANNED_TERMS
from nnunet_topo.recipe import Recipe
from nnunet_topo.schedule import learning_rate


def unavailable_mechanisms(recipe: Recipe) -> list[str]:
    """Settings that no trainer can run yet, as `dotted.key: value`; empty when the recipe can be trained."""
    found = []
    if recipe.lr_schedule.name not in learning_rate.AVAILABLE:
        found.append(f"lr_schedule.name: {recipe.lr_schedule.name}")
    settings = recipe.to_mapping()
    found += [
        f"{key}: {settings[key]}"
        for key in ("plateau", "rollback", "noise", "early_stopping")
        if settings[key] is not None
    ]
    if recipe.averaging.kind != "none":
        found.append(f"averaging.kind: {recipe.averaging.kind}")
    found += [
        f"phases.{index}.weights.{term}: {weight}"
        for index, phase in enumerate(recipe.phases)
        for term, weight in phase.weights.items()
        if term in PLANNED_TERMS and "class" not in recipe.losses.get(term, {}) and weight > 0
    ]
    return found
