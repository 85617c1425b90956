"""Weights to start a fine-tuning from."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from nnunet_topo.errors import CheckpointError
from nnunet_topo.training.checkpoint import read_checkpoint

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
