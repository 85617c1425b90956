"""Checkpoints that stock nnU-Net reads, written atomically and read back without running code."""

from __future__ import annotations

import math
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch._dynamo import OptimizedModule

from nnunet_topo.errors import CheckpointError
from nnunet_topo.training.atomic import atomic_file

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

TOPO_KEY = "nnunet_topo"
FINAL = "checkpoint_final.pth"
LATEST = "checkpoint_latest.pth"
BEST = "checkpoint_best.pth"
PREVIOUS = "checkpoint_previous.pth"
TRUST_VARIABLE = "NNUNET_TOPO_TRUST"
_TO_RESUME = ("optimizer_state", "logging", "_best_ema", "current_epoch", "init_args")
# Stock nnU-Net keeps NumPy scalars in the logging section of its checkpoints.
_NUMPY_SCALARS: list[Any] = [
    np.float64(0).__reduce__()[0],
    np.dtype,
    *{type(np.dtype(code)) for code in "fdbBhHiIlLqQ?"},
]
# A pickle or an archive of wrong bytes may fail in each of these ways.
_DAMAGED = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def bare_network(network: nn.Module) -> nn.Module:
    """The network without the wrappers of DistributedDataParallel and torch.compile."""
    module = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
    return module._orig_mod if isinstance(module, OptimizedModule) else module


def to_builtins(value: Any) -> Any:
    """The value with NumPy scalars and arrays turned into Python's own; tensors and everything else stay."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: to_builtins(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_builtins(item) for item in value)
    return value


def write_checkpoint(checkpoint: Mapping[str, Any], file: str | Path, *, keep_latest: bool = False) -> None:
    """Write a checkpoint so that the file is at every moment either the old one or the new one, whole.

    Args:
        checkpoint: tensors and builtins only.
        file: the target; a temporary file beside it is replaced into its place.
        keep_latest: whether a `checkpoint_latest.pth` that this one succeeds stays as `checkpoint_previous.pth`.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; what was there is still there.
    """
    file = Path(file)
    latest, previous = file.with_name(LATEST), file.with_name(PREVIOUS)
    keep_latest = keep_latest and latest.is_file()
    try:
        with atomic_file(file, displaced=previous if keep_latest and file == latest else None) as stream:
            torch.save(dict(checkpoint), stream)
        if keep_latest and file.name == FINAL:
            os.replace(latest, previous)
    except (OSError, RuntimeError) as error:
        # torch reports a failed write as an inconsistency of its own.
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        raise CheckpointError(
            f"checkpoint: expected to write a file, got {_first_line(cause)}. {file}. The checkpoints before it are "
            "untouched: make room, then go on with --c."
        ) from error


def read_checkpoint(file: str | Path) -> dict[str, Any]:
    """Contents of one of nnU-Net's or our checkpoints, refusing anything that would run code.

    The section `nnunet_topo` is there in any case, empty when stock nnU-Net wrote the file. All tensors are on the CPU:
    a GPU need not hold a checkpoint beside the network, and AdamW's counters of steps must not come back on one, where
    every parameter would make every step wait.

    Args:
        file: a `checkpoint_*.pth`.

    Raises:
        CheckpointError: the file is missing, damaged, holds unsafe objects or is no nnU-Net checkpoint.
    """
    try:
        checkpoint = _load(file)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint: expected a file, got none. {file}. Check the path.") from error
    except pickle.UnpicklingError as error:
        # torch's own text advises to load it all the same; it stays in the chain of exceptions.
        named = _refused_global(error)
        got = f"'{named}', which loading would run" if named else "bytes that are not a checkpoint"
        trust = f", or set {TRUST_VARIABLE}=1 to run what is in this one" if named else ""
        raise CheckpointError(
            f"checkpoint: expected tensors and plain values only, got {got}. {file}. "
            f"Use a checkpoint that you trust and that is whole{trust}."
        ) from error
    except _DAMAGED as error:
        raise CheckpointError(
            f"checkpoint: expected a readable file, got {_first_line(error)}. {file}. "
            "The file is damaged: remove it and continue from another checkpoint of this fold."
        ) from error
    if not isinstance(checkpoint, dict) or "network_weights" not in checkpoint:
        raise CheckpointError(
            f"checkpoint: expected nnU-Net's key 'network_weights', got {type(checkpoint).__name__}. {file}. "
            "Name a checkpoint that nnUNetv2_train wrote."
        )
    section = checkpoint.setdefault(TOPO_KEY, {})
    if not isinstance(section, dict):
        raise CheckpointError(
            f"checkpoint: expected a mapping under '{TOPO_KEY}', got {type(section).__name__}. {file}. It was changed "
            "after training: use the original."
        )
    return checkpoint


def _load(file: str | Path) -> Any:
    if zipfile.is_zipfile(file):
        # torch notices a missing end, but no wrong bytes in the middle.
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of '{damaged}'")
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _refused_global(error) and os.environ.get(TRUST_VARIABLE, "").strip() == "1":
            return torch.load(file, map_location="cpu", weights_only=False)
        raise


def _refused_global(error: pickle.UnpicklingError) -> str | None:
    """The function or class that a pickle asks for and may not have."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    return named[1] if named else None


def require_resumable(checkpoint: Mapping[str, Any], file: str | Path) -> None:
    """Raise when a checkpoint holds weights, but not what a training or validation needs besides.

    Raises:
        CheckpointError: names what is missing.
    """
    missing = [key for key in _TO_RESUME if key not in checkpoint]
    if missing:
        raise CheckpointError(
            f"checkpoint: expected the keys of a training, got none of the name {', '.join(missing)}. {file}. "
            "Name a checkpoint that nnUNetv2_train wrote; weights alone can be given to -pretrained_weights."
        )


def _first_line(error: BaseException) -> str:
    """Kind and first sentence of an error; torch goes on with advice for other programs."""
    line = str(error).partition("\n")[0].partition(". ")[0]
    return f"{type(error).__name__} {line}".strip()


def load_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], file: str | Path) -> None:
    """Load every parameter of a checkpoint, heads included, into a network of the same architecture.

    Raises:
        CheckpointError: names or shapes differ.
    """
    bare = bare_network(network)
    known = bare.state_dict().keys()
    renamed = {key if key in known else key.removeprefix("module."): value for key, value in weights.items()}
    try:
        bare.load_state_dict(renamed)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:3]]
        raise CheckpointError(
            f"network_weights: expected the architecture of this run's plans, got another: {' '.join(reasons)} {file}. "
            "Use plans with the same network."
        ) from error


def checkpoint_of(trainer: nnUNetTrainer, section: Mapping[str, Any], next_epoch: int) -> dict[str, Any]:
    """Stock nnU-Net's checkpoint of a trainer with one more key; tensors and builtins only.

    Args:
        trainer: an initialised trainer.
        section: what goes under `nnunet_topo`.
        next_epoch: the epoch that a resumed run begins, or goes on with.
    """
    scaler = trainer.grad_scaler
    return {
        "network_weights": bare_network(trainer.network).state_dict(),
        "optimizer_state": trainer.optimizer.state_dict(),
        "grad_scaler_state": None if scaler is None else scaler.state_dict(),
        "logging": to_builtins(trainer.logger.get_checkpoint()),
        "_best_ema": to_builtins(trainer._best_ema),
        "current_epoch": next_epoch,
        "init_args": trainer.my_init_kwargs,
        "trainer_name": type(trainer).__name__,
        "inference_allowed_mirroring_axes": trainer.inference_allowed_mirroring_axes,
        TOPO_KEY: dict(section),
    }


def restore(trainer: nnUNetTrainer, checkpoint: Mapping[str, Any], file: str | Path) -> None:
    """Put what stock nnU-Net keeps of an initialised trainer into the state of a checkpoint.

    Raises:
        CheckpointError: the checkpoint is of another network or optimiser, or holds nothing but weights.
    """
    require_resumable(checkpoint, file)
    load_weights(trainer.network, checkpoint["network_weights"], file)
    trainer.my_init_kwargs = checkpoint["init_args"]
    trainer.current_epoch = checkpoint["current_epoch"]
    trainer.logger.load_checkpoint(checkpoint["logging"])
    best = checkpoint["_best_ema"]  # NaN, of a first epoch without any foreground, would stay the best for good
    trainer._best_ema = best if best is not None and math.isfinite(best) else None
    trainer.inference_allowed_mirroring_axes = checkpoint.get(
        "inference_allowed_mirroring_axes", trainer.inference_allowed_mirroring_axes
    )
    _load_optimizer(trainer.optimizer, checkpoint["optimizer_state"], file)
    if trainer.grad_scaler is not None and checkpoint.get("grad_scaler_state") is not None:
        trainer.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])


def _load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], file: str | Path) -> None:
    """Load an optimiser's state; one of stock nnU-Net may be of another optimiser or of more parameters."""
    saved, own = (_optimizer_kind(groups) for groups in (state["param_groups"], optimizer.param_groups))
    if saved != own:
        raise CheckpointError(
            f"optimizer_state: expected that of {own[0]} over {own[1]} parameter tensors, as the recipe asks for, got "
            f"that of {saved[0]} over {saved[1]}. {file}. Go on with a recipe of the same 'optimizer' and 'trainable', "
            "or start a run of its own from these weights with start_from or -pretrained_weights."
        )
    optimizer.load_state_dict(dict(state))


def _optimizer_kind(groups: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """Name of the optimiser in a recipe, and the number of parameter tensors."""
    return "adamw" if "betas" in groups[0] else "sgd", sum(len(group["params"]) for group in groups)
