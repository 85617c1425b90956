"""Weights to start a fine-tuning from."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from nnunet_topo.errors import CheckpointError, ConfigError
from nnunet_topo.recipe import Recipe
from nnunet_topo.training.checkpoint import load_weights, read_checkpoint

_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")


def weights_to_start_from(start_from: str, fold: int | str) -> tuple[dict[str, Tensor], Path]:
    """Network weights, heads included, of the same fold of another model.

    Another fold's network was trained on this fold's validation cases, so starting from it would leak them.

    Args:
        start_from: a model folder (`TRAINER__PLANS__CONFIGURATION`), one of its `fold_X` folders or a checkpoint in
            it; relative paths are looked up in the working directory, then in nnUNet_results.
        fold: the fold to be trained, 0, 1, ... or "all".

    Returns:
        The weights by parameter name, and the file that they came from.

    Raises:
        CheckpointError: nothing there, or it belongs to another fold.
    """
    path = Path(os.path.expanduser(start_from))
    results = os.environ.get("nnUNet_results")
    if not path.is_absolute() and not path.exists() and results:
        path = Path(results) / path
    file = _checkpoint_in(path, fold)
    found = file.parent.name
    if found != f"fold_{fold}":
        raise CheckpointError(
            f"start_from: expected a checkpoint of fold_{fold}, got one of '{found}'. {file}. Its network has seen the "
            f"validation cases of fold {fold}, so the result would be a leak: name the model folder or its fold_{fold}."
        )
    return read_checkpoint(file)["network_weights"], file


def fingerprint(network: nn.Module) -> float:
    """A number that changes when the weights do; taken on the CPU, since not every device has float64."""
    with torch.no_grad():
        return float(sum(parameter.cpu().double().abs().sum() for parameter in network.parameters()))


def needs_weights(recipe: Recipe) -> bool:
    """Whether a run of the recipe does not start at random: it names weights, or freezes a part of the network."""
    return bool(recipe.start_from) or recipe.trainable != "all"


def start_from(network: nn.Module, recipe: Recipe, fold: int | str, initial: float) -> Path | None:
    """Load the weights that `weights_to_start_from` finds, and return their file; None where nnU-Net loaded them.

    Args:
        network: changed in place.
        recipe: one that `needs_weights`.
        fold: as in `weights_to_start_from`.
        initial: the network's `fingerprint` when it was built.

    Raises:
        ConfigError: the network holds other weights already; or random ones, and the recipe would freeze them.
        CheckpointError: as in `weights_to_start_from`, or another architecture.
    """
    loaded = fingerprint(network) != initial
    if recipe.start_from is None:
        if not loaded:
            raise ConfigError(
                f"start_from: expected a model folder, got null, while trainable is {list(recipe.trainable)}: the rest "
                f"of the network would stay random. recipe '{recipe.name}'. Set start_from ('nnunet-topo plan -r "
                f"{recipe.name} --set start_from=FOLDER'), or train with -pretrained_weights."
            )
        return None
    if loaded:
        raise ConfigError(
            f"start_from: expected the only source of weights, got '{recipe.start_from}' besides -pretrained_weights. "
            "Drop one of them."
        )
    weights, file = weights_to_start_from(recipe.start_from, fold)
    load_weights(network, weights, file)
    return file


def _checkpoint_in(path: Path, fold: int | str) -> Path:
    if path.is_file():
        return path
    folder = path if path.name.startswith("fold_") else path / f"fold_{fold}"
    for name in _CHECKPOINTS:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"start_from: expected {' or '.join(_CHECKPOINTS)}, found neither. {folder}. Train fold {fold} of that model "
        "first, or correct the path."
    )
