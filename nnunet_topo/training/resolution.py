"""Which recipe a training run follows, and whether it may."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_topo.control import Event
from nnunet_topo.errors import CheckpointError, ConfigError, DataError
from nnunet_topo.recipe import (
    Recipe,
    load_recipe,
    recipe_differences,
    recipe_from_mapping,
    recipe_to_yaml,
)
from nnunet_topo.training.atomic import write_atomically
from nnunet_topo.training.checkpoint import TOPO_KEY
from nnunet_topo.training.existing_run import Choice, newest_valid

RECIPE_VARIABLE = "NNUNET_TOPO_RECIPE"
RECIPE_FILE = "topo_recipe.yaml"


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe and where it came from.

    Attributes:
        recipe: the validated recipe.
        source: "environment", "plans", "default" or "checkpoint".
        explicit: whether the user named it (environment or plans); what nobody named gives way to a checkpoint's.
    """

    recipe: Recipe
    source: str
    explicit: bool


def resolve_recipe(plans: Mapping[str, Any], default: str) -> ResolvedRecipe:
    """Recipe of a run: the environment's, else the plans', else the trainer's default.

    Args:
        plans: nnU-Net's plans as loaded from JSON; the section `nnunet_topo` may hold `{"recipe": {...}}`.
        default: name of a recipe in `plans/`.

    Raises:
        ConfigError: the named recipe does not exist or is not valid.
    """
    named = os.environ.get(RECIPE_VARIABLE, "").strip()
    if named:
        return ResolvedRecipe(load_recipe(named), "environment", explicit=True)
    section = plans.get("nnunet_topo")
    if section is not None:
        where = f"plans '{plans.get('plans_name')}', section nnunet_topo"
        if not isinstance(section, Mapping) or "recipe" not in section:
            raise ConfigError(
                f"nnunet_topo: expected {{'recipe': {{...}}}}, got {section!r}. {where}. "
                "Write the plans file again with 'nnunet-topo plan'."
            )
        return ResolvedRecipe(recipe_from_mapping(section["recipe"], where), "plans", explicit=True)
    return ResolvedRecipe(load_recipe(default), "default", explicit=False)


def against_checkpoint(
    resolved: ResolvedRecipe, saved: Mapping[str, Any] | None, *, continue_training: bool, file: str
) -> ResolvedRecipe:
    """Recipe to go on with after loading a checkpoint.

    A recipe that nobody named gives way to the checkpoint's. One that was named must be the checkpoint's own when the
    training goes on. For a validation it does not matter, and gives way too: the checkpoint's optimiser and controls
    fit its own recipe only.

    Args:
        resolved: what environment, plans or default gave.
        saved: the checkpoint's recipe mapping, None when it holds none.
        continue_training: whether `--c` was given.
        file: the checkpoint's path, for messages.

    Raises:
        CheckpointError: `--c` with another recipe than the checkpoint's, listing the differences.
    """
    if saved is None:
        return resolved
    recipe = recipe_from_mapping(saved, f"checkpoint {file}")
    if not resolved.explicit:
        return ResolvedRecipe(recipe, "checkpoint", explicit=False)
    differences = recipe_differences(recipe, resolved.recipe)
    if not differences:
        return resolved
    if continue_training:
        raise CheckpointError(
            f"--c: expected the checkpoint's recipe '{recipe.name}', got '{resolved.recipe.name}' "
            f"(from the {resolved.source}), which differs in {'; '.join(differences)}. {file}. "
            f"To go on with the checkpoint's recipe set {RECIPE_VARIABLE} to the {RECIPE_FILE} beside it; to train the "
            "other one give it plans of its own ('nnunet-topo plan')."
        )
    return ResolvedRecipe(recipe, "checkpoint", explicit=False)


def refuse_other_folds(recipe: Recipe, model_folder: Path, fold_folder: Path) -> None:
    """Raise when another fold of the same model folder was trained with another recipe.

    Five folds are ensembled and cross-validated as one model, so they must be one experiment. A folder without a
    checkpoint is not a run and does not count.

    Raises:
        CheckpointError: names the fold and the differences.
    """
    for folder in sorted(model_folder.glob("fold_*")):
        if folder == fold_folder or not (other := _recipe_of_fold(folder)):
            continue
        differences = recipe_differences(other, recipe)
        if differences:
            raise CheckpointError(
                f"recipe: expected that of the other folds, '{other.name}', got '{recipe.name}', which differs in "
                f"{'; '.join(differences)}. {folder}. Train this fold with that recipe, or give the new one plans of "
                "its own ('nnunet-topo plan') so that it lands in another folder."
            )


def _recipe_of_fold(folder: Path) -> Recipe | None:
    """Recipe that a fold was trained with, None when it holds no checkpoint or one of stock nnU-Net."""
    if not any(folder.glob("checkpoint_*.pth")):
        return None
    if (folder / RECIPE_FILE).is_file():
        return load_recipe(folder / RECIPE_FILE)
    # nnU-Net's export leaves the recipe's file behind, but not the checkpoint.
    choice = newest_valid(folder)
    saved = choice.checkpoint.get(TOPO_KEY, {}).get("recipe")
    return recipe_from_mapping(saved, f"checkpoint {choice.file}") if saved else None


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write the resolved recipe beside the checkpoints, every default filled in.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    text, file = f"# The recipe of this run, every default filled in.\n{recipe_to_yaml(recipe)}", folder / RECIPE_FILE
    try:
        write_atomically(file, text.encode())
    except OSError as error:
        raise DataError(
            f"recipe: expected to write a file, got {error.strerror or error}. {file}. "
            "Make room, or make the folder writable."
        ) from error


def start_events(
    resolved: ResolvedRecipe, resumed_from: str | None, choice: Choice | None, started_from: Path | None
) -> list[Event]:
    """What a run says of itself at its start, settings that do not act in it included.

    Args:
        resolved: the recipe and its source.
        resumed_from: the checkpoint's path when a training goes on.
        choice: why that one, with `--c`.
        started_from: the file whose weights a fine-tuning starts from.
    """
    recipe = resolved.recipe
    origin = f"recipe '{recipe.name}' from the {resolved.source}"
    if resumed_from is None:
        events = [Event("start", origin, after=recipe.name)]
    else:
        why = f", {choice.why}" if choice else ""
        events = [Event("resume", f"--c, {origin}{why}", after=Path(resumed_from).name)]
    for name, reason in (choice.rejected if choice else {}).items():
        events.append(Event("checkpoint rejected", reason, before=name))
    if started_from is not None:
        events.append(Event("start_from", "weights of the same fold, heads included", after=str(started_from)))
    network = {key: value for key, value in recipe.to_mapping()["network"].items() if value is not None}
    if network and resolved.source != "plans":
        why = "network settings act only through plans: run 'nnunet-topo plan' and train with -p"
        events.append(Event("network settings not applied", why, before=network))
    if recipe.inference.threshold != 0.5:
        why = "nnUNetv2_predict takes the most probable class; inference settings do not act in training"
        events.append(Event("inference.threshold not applied", why, before=recipe.inference.threshold))
    return events


def require_axes(recipe: Recipe, patch_size: Sequence[int], configuration: str) -> None:
    """Raise when a recipe mirrors along an axis that the patches of a configuration do not have.

    Raises:
        ConfigError: naming the axis.
    """
    for axis in recipe.sampling.mirror_axes or ():
        if axis >= len(patch_size):
            raise ConfigError(
                f"sampling.mirror_axes: expected axes 0..{len(patch_size) - 1} for configuration '{configuration}', "
                f"got {axis}. recipe '{recipe.name}'. Leave it out."
            )
