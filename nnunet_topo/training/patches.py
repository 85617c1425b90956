"""The monitors' patches: drawn once, the same in every epoch and for every recipe of the same plans and fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch import Tensor, nn

from nnunet_topo.losses import Term, View
from nnunet_topo.losses.term import full_precision
from nnunet_topo.training.targets import AppendLabelTargets

if TYPE_CHECKING:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
    from nnunetv2.utilities.label_handling.label_handling import LabelManager


@dataclass(frozen=True)
class Patch:
    """One full-resolution patch as the network and the loss take it, on the CPU.

    Attributes:
        case: where it was cut from.
        data: (1, C, X, Y[, Z]) float32.
        labels: as in `Term.forward`, batch of 1.
        targets: label-derived targets by name, (1, K, X, Y[, Z]).
    """

    case: str
    data: Tensor
    labels: Tensor
    targets: dict[str, Tensor]

    def evaluated(
        self, network: nn.Module, terms: Mapping[str, Term], device: torch.device
    ) -> tuple[View, dict[str, Tensor]]:
        """What the network makes of the patch, and the unweighted value () of each term at full resolution."""
        outputs = network(self.data.to(device))
        logits = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        targets = {name: target.to(device) for name, target in self.targets.items()}
        with full_precision(device.type):
            labels, first = self.labels.to(device), next(iter(terms.values()))
            views = {0: View(logits, labels, ignore_label=first.ignore_label, regions=first.regions)}
            for term in terms.values():
                if term.scnp not in views:
                    views[term.scnp] = term.view(logits, labels)
            return views[0], {name: term.evaluate(views[term.scnp], targets) for name, term in terms.items()}


def draw_patches(
    dataset: nnUNetBaseDataset,
    label_manager: LabelManager,
    patch_size: Sequence[int],
    count: int,
    *,
    transforms: ComposeTransforms,
    label_targets: AppendLabelTargets,
    seed: int,
) -> list[Patch]:
    """Patches of the validation cases, cut by nnU-Net's own loader without augmentation.

    Every second one is centred on a voxel of the foreground, the others lie anywhere (on an annotated voxel when the
    dataset has an ignore label). The first n of a longer draw are those of a shorter one. NumPy's global random state,
    which nnU-Net's loader draws from, is put back afterwards.

    Args:
        dataset: of the validation cases.
        label_manager: of the dataset.
        patch_size: of the network, 2 or 3 axes.
        count: number of patches; cases are taken in turn in a seeded order.
        transforms: nnU-Net's validation transforms without deep supervision; changed in place.
        label_targets: appended to them.
        seed: of the draw.
    """
    transforms.transforms.append(label_targets)
    loader = nnUNetDataLoader(dataset, 1, patch_size, patch_size, label_manager, transforms=transforms)
    cases = sorted(dataset.identifiers)
    order = np.random.default_rng(seed).permutation(len(cases))
    patches = []
    for index in range(count):
        case = cases[order[index % len(cases)]]
        loader.indices = [case]
        loader.oversample_foreground_percent = float(index % 2 == 0)
        with _numpy_seed([seed, index]):
            batch = next(loader)
        labels, *targets = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
        named = dict(zip(label_targets.names, targets, strict=True))
        patches.append(Patch(case, batch["data"], labels, named))
    return patches


@contextmanager
def _numpy_seed(seed: Sequence[int]) -> Iterator[None]:
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)
