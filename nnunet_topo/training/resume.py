"""What a resumed run needs besides weights and controls to go on as if nothing had happened, to the last bit.

That holds on CPU with single-threaded augmentation (`nnUNet_n_proc_DA=0`). nnU-Net's worker processes draw from
generators of their own, seeded by the operating system, and CUDA kernels add in any order: with those a resumed run
sees other patches, while its schedules and decisions go on from the same state.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from time import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform, _compute_kernel_size

from nnunet_topo.control.action import AddNoise
from nnunet_topo.training.checkpoint import to_builtins
from nnunet_topo.training.record import over_ranks

if TYPE_CHECKING:
    from nnunet_topo.training.trainers import nnUNetTrainerTopo


@dataclass
class EpochProgress:
    """How far an epoch has come: what its steps gave so far.

    Attributes:
        training: outputs of the training steps.
        validation: outputs of the validation steps.
        validating: whether the training steps are over and evaluated.
    """

    training: list[dict[str, Any]] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)
    validating: bool = False

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self.training) + len(self.validation)


def seed_generators(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """State of Python's, NumPy's and torch's generators, that of the device included, in builtins and tensors."""
    name, keys, position, has_gauss, cached_gaussian = np.random.get_state()
    state: dict[str, Any] = {
        "python": random.getstate(),
        # torch reads and writes no uint32 tensors in older versions.
        "numpy": (name, torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, cached_gaussian),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put the generators into the state that `random_state` gave; its tensors may be on any device."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def pack_outputs(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Outputs of an epoch's steps as one tensor a key, or a list where they are no arrays."""
    keys = outputs[0] if outputs else ()
    packed = {key: [output[key] for output in outputs] for key in keys}
    return {
        key: torch.from_numpy(np.stack(values)) if isinstance(values[0], np.ndarray) else to_builtins(values)
        for key, values in packed.items()
    }


def unpack_outputs(packed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The list of outputs that `pack_outputs` was given."""
    columns = {key: value.cpu().numpy() if torch.is_tensor(value) else value for key, value in packed.items()}
    length = max((len(column) for column in columns.values()), default=0)
    # The ellipsis keeps an array of no dimension an array.
    return [
        {key: value[step, ...] if isinstance(value, np.ndarray) else value[step] for key, value in columns.items()}
        for step in range(length)
    ]


def choose_blur_paths(loader: Any) -> None:
    """Let nnU-Net's blur time convolution against FFT for all kernels that may come, not when the first one comes.

    The two differ in the last bits, and the clock decides. Decided at the start, a choice holds for the whole run and
    stands in all of its checkpoints. Workers decide for themselves, so this is for single-threaded augmentation only.

    Args:
        loader: nnU-Net's; what was chosen already stays.
    """
    for blur in _blurs(loader):
        if not blur.benchmark or not isinstance(blur.blur_sigma, (tuple, list)):
            continue
        low, high = map(float, blur.blur_sigma)
        sigmas = {_compute_kernel_size(sigma): sigma for sigma in np.linspace(low, high, 101).tolist()}
        patch = torch.zeros(1, *(size for size in loader.data_loader.final_patch_size if size > 1))
        for axis in range(patch.ndim - 1):
            for sigma in sigmas.values():
                blur._benchmark_wrapper(patch, sigma, axis)


def blur_paths(loader: Any) -> list[dict[int, dict[int, bool]]]:
    """Of each blur of a single-threaded loader, in order: size of the axis -> size of the kernel -> whether by FFT."""
    return [
        {
            int(size): {int(k): bool(fft) for k, fft in kernels.items()}
            for size, kernels in blur.benchmark_use_fft.items()
        }
        for blur in _blurs(loader)
    ]


def restore_blur_paths(loader: Any, paths: list[dict[int, dict[int, bool]]]) -> None:
    """Give the blurs of a single-threaded loader the choices that `blur_paths` gave."""
    for blur, chosen in zip(_blurs(loader), paths, strict=False):
        blur.benchmark_use_fft = {size: dict(kernels) for size, kernels in chosen.items()}


def _blurs(loader: Any) -> list[GaussianBlurTransform]:
    if not isinstance(loader, SingleThreadedAugmenter):
        return []
    return list(_blurs_in(getattr(loader.data_loader, "transforms", None)))


def _blurs_in(transform: Any) -> Iterator[GaussianBlurTransform]:
    if isinstance(transform, GaussianBlurTransform):
        yield transform
    inner = [getattr(transform, "transform", None)]
    for name in ("transforms", "list_of_transforms"):
        inner += getattr(transform, name, None) or []
    for one in inner:
        if one is not None:
            yield from _blurs_in(one)


def resume_section(trainer: nnUNetTrainerTopo) -> dict[str, Any]:
    """Part of a checkpoint that lets a run go on where it was, in builtins and tensors; called on every rank.

    Returns:
        `ranks`, what is different on each rank, `position`, how far the epoch has come (None between two epochs),
        `nonfinite_in_a_row`, `noise_due`, noise that waits for the next epoch, and `journal_lines`, the number of
        lines that belong to this state.
    """
    progress = trainer.progress
    rank: dict[str, Any] = {"random": random_state(trainer.device), "blur_paths": blur_paths(trainer.dataloader_train)}
    position = None
    if progress is not None:
        rank["training"], rank["validation"] = pack_outputs(progress.training), pack_outputs(progress.validation)
        position = {
            "steps": progress.steps,
            "validating": progress.validating,
            "record": to_builtins(trainer.epoch_record),
            "terms": list(trainer.terms),
            "elapsed_s": time() - trainer.logger.get_value("epoch_start_timestamps", step=-1),
        }
    return {
        "ranks": over_ranks(rank),
        "position": position,
        "nonfinite_in_a_row": trainer.guard.in_a_row,
        "noise_due": [asdict(action) for action in trainer.noise_due],
        "journal_lines": trainer.journal.count() if trainer.local_rank == 0 else None,
    }


def load_resume_section(trainer: nnUNetTrainerTopo, section: Mapping[str, Any]) -> None:
    """Take up what `resume_section` gave; the generators wait for `restore_rank`.

    Args:
        trainer: its logger holds the checkpoint's values already.
        section: the checkpoint's `nnunet_topo`, empty for one of stock nnU-Net.
    """
    ranks, position = section.get("ranks") or [], section.get("position")
    own = ranks[trainer.local_rank % len(ranks)] if ranks else {}
    # Another number of ranks draws other patches in any case; repeating those of another rank would be worse.
    trainer.rank_state = own if len(ranks) == len(over_ranks(None)) else {}
    trainer.guard.in_a_row = int(section.get("nonfinite_in_a_row", 0))
    trainer.noise_due = [AddNoise(**action) for action in section.get("noise_due", [])]
    trainer.progress, trainer.journal_lines = None, section.get("journal_lines")
    if position is None:
        return
    training, validation = unpack_outputs(own["training"]), unpack_outputs(own["validation"])
    trainer.progress = EpochProgress(training, validation, bool(position["validating"]))
    trainer.epoch_record = dict(position["record"])
    trainer.phases.start_epoch(trainer.current_epoch)  # weights follow from the epoch; its events are in the journal
    trainer.terms = {name: torch.tensor(0.0) for name in position["terms"]}
    # The time between the two processes belongs to no epoch.
    trainer.logger.get_value("epoch_start_timestamps", step=None)[-1] = time() - float(position["elapsed_s"])


def seed_or_restore(trainer: nnUNetTrainerTopo) -> None:
    """Generators as the checkpoint left them, else as the recipe's seed wants them, before workers are forked."""
    if trainer.rank_state:
        restore_random_state(trainer.rank_state["random"], trainer.device)
    elif trainer.recipe.seed is not None:
        # Epoch and rank too: a resumed run must not repeat the first epochs' patches, nor a rank another's.
        numbers = [trainer.recipe.seed, trainer.current_epoch, trainer.local_rank]
        seed_generators(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


def restore_rank(trainer: nnUNetTrainerTopo) -> None:
    """Loader and generators as the checkpoint left them, once nothing draws from them any more before the next step."""
    restore_blur_paths(trainer.dataloader_train, trainer.rank_state.get("blur_paths", []))
    choose_blur_paths(trainer.dataloader_train)
    if trainer.rank_state:
        restore_random_state(trainer.rank_state["random"], trainer.device)
