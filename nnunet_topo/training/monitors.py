"""What the controls judge a run by: measured on fixed patches, whatever the loss weights of the epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch import distributed as dist

from nnunet_topo.functional.masks import structure_onehot
from nnunet_topo.losses import NNUNET_TERM, Term, View
from nnunet_topo.metrics.betti import betti_numbers
from nnunet_topo.recipe import Recipe
from nnunet_topo.training.checkpoint import bare_network
from nnunet_topo.training.conflict import gradient_conflict
from nnunet_topo.training.loss import build_terms
from nnunet_topo.training.patches import Patch, draw_patches
from nnunet_topo.training.record import to_numpy
from nnunet_topo.training.targets import label_targets_for

if TYPE_CHECKING:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

    from nnunet_topo.training.trainers import nnUNetTrainerTopo

COMPARED_TERMS = ("dice", "ce")
"""Measured for every recipe, so that two runs can be compared whatever they were trained with."""

# Counting Betti numbers takes 40 to 150 ms for a 128^3 patch, 2 to 20 ms for its central 64^3. A smaller crop, not a
# coarser one: downsampling closes exactly the gaps that are to be counted.
_TOPOLOGY_EDGE = {2: 256, 3: 64}
_MOST_STRUCTURES = 4
_BETTI_WEIGHT = 0.3


CONFLICT_PATCHES = 2


def optimised_terms(recipe: Recipe) -> tuple[str, ...]:
    """Terms with a weight in any phase, nnU-Net's own loss as dice and ce."""
    names = recipe.active_terms()
    stock = COMPARED_TERMS if NNUNET_TERM in names else ()
    return tuple(dict.fromkeys([*(name for name in names if name != NNUNET_TERM), *stock]))


def monitored_terms(recipe: Recipe) -> tuple[str, ...]:
    """Terms measured on the fixed patches: the optimised ones, those of the reference loss, and dice and ce."""
    return tuple(dict.fromkeys([*optimised_terms(recipe), *reference_weights(recipe), *COMPARED_TERMS]))


def reference_weights(recipe: Recipe) -> dict[str, float]:
    """Weights of the reference loss: the recipe's, or those of its last phase, which the run is finally trained for.

    They stay the same through all phases, ramps and interventions. nnU-Net's own loss counts as dice plus ce.
    """
    chosen = recipe.monitor.reference_weights
    weights = {
        name: weight for name, weight in (recipe.phases[-1].weights if chosen is None else chosen).items() if weight > 0
    }
    stock = weights.pop(NNUNET_TERM, 0.0)
    if stock:
        weights |= {name: weights.get(name, 0.0) + stock for name in COMPARED_TERMS}
    return weights


class Monitors:
    """Measures a network on fixed patches.

    Args:
        patches: one or more, on the CPU.
        terms: to be measured, by name, made with `batch_dice=False`: patches are looked at one by one.
        weights: of the reference loss, by name of a term.
    """

    def __init__(self, patches: Sequence[Patch], terms: Mapping[str, Term], weights: Mapping[str, float]) -> None:
        self.patches = list(patches)
        self.terms = dict(terms)
        self.weights = dict(weights)
        self._labelled: dict[int, tuple[NDArray[np.bool_], list[tuple[int, ...]]]] = {}

    @classmethod
    def of(cls, trainer: nnUNetTrainerTopo, validation_cases: nnUNetBaseDataset) -> Monitors:
        """The monitors of a trainer whose loaders are built."""
        recipe, labels = trainer.recipe, trainer.label_manager
        names = monitored_terms(recipe)
        terms = build_terms(recipe, names, labels, spacing_mm=trainer.patch_spacing(), batch_dice=False)
        targets = dict.fromkeys(name for term in terms.values() for name in term.target_names)
        patches = draw_patches(
            validation_cases,
            labels,
            trainer.configuration_manager.patch_size,
            recipe.monitor.patches,
            # The class's own: the trainer's loaders append targets of their own to the instance's.
            transforms=type(trainer).get_validation_transforms(
                None,
                is_cascaded=trainer.is_cascaded,
                foreground_labels=labels.foreground_labels,
                regions=labels.foreground_regions if labels.has_regions else None,
                ignore_label=labels.ignore_label,
            ),
            label_targets=label_targets_for(trainer, tuple(targets)),
            seed=recipe.monitor.seed,
        )
        on_device = {name: term.to(trainer.device) for name, term in terms.items()}
        return cls(patches, on_device, reference_weights(recipe))

    def measure_epoch(self, trainer: nnUNetTrainerTopo) -> None:
        """Fill `monitors`, `reference_terms` and where asked for `conflict` of the trainer's epoch record."""
        record, validation = trainer.epoch_record, trainer.epoch_record["validation"]
        measured = self.measure(trainer.network, trainer.device, trainer.autocast())
        record["monitors"] |= {
            "validation_loss": _finite(validation["loss"]),
            "pseudo_dice": _finite(validation["mean_pseudo_dice"]),
            "ema_pseudo_dice": _finite(validation["ema_pseudo_dice"]),
            **measured["monitors"],
        }
        record["reference_terms"] = measured["reference_terms"]
        every = trainer.recipe.conflict_every
        if every and trainer.current_epoch % every == 0:
            terms = {name: self.terms[name] for name in optimised_terms(trainer.recipe)}
            centred = self.patches[::2][:CONFLICT_PATCHES]  # on foreground: the others may hold nothing
            record["conflict"] = gradient_conflict(trainer.network, terms, centred, trainer.device)

    def measure(
        self, network: nn.Module, device: torch.device, autocast: AbstractContextManager[Any]
    ) -> dict[str, dict[str, float | None]]:
        """Values of the epoch, the same on all ranks, each of which evaluates its share of the patches.

        Args:
            network: evaluated in evaluation mode without gradients, and left in the mode it came in.
            device: of the network.
            autocast: as in nnU-Net's validation.

        Returns:
            `monitors`: reference_loss, topology_error in [0, 1], foreground_predicted, foreground_labelled and
            foreground_spread (standard deviation over the patches of the predicted share), each None when it could
            not be measured; `reference_terms`: every term unweighted, its mean over the patches.
        """
        bare = bare_network(network)  # DistributedDataParallel's wrapper would wait for ranks with fewer patches
        was_training = bare.training
        bare.eval()
        try:
            with torch.no_grad(), autocast:
                rows = {index: self._row(index, bare, device) for index in share_of_rank(len(self.patches))}
        finally:
            bare.train(was_training)
        return self._summary(gathered(rows))

    def _row(self, index: int, network: nn.Module, device: torch.device) -> dict[str, float]:
        """What one patch gives: every term, the shares of foreground, the topology error."""
        view, terms = self.patches[index].evaluated(network, self.terms, device)
        predicted = predicted_structures(view)
        voxels = view.count.sum().clamp(min=1)
        shares = [structures.any(1).sum() / voxels for structures in (predicted, view.onehot)]
        numbers = to_numpy([*terms.values(), *shares]).tolist()
        if index not in self._labelled:
            labelled = _central(view.onehot)
            self._labelled[index] = labelled, [betti_numbers(mask) for mask in labelled]
        error = topology_error(_central(predicted), *self._labelled[index])
        names = [*terms, "foreground_predicted", "foreground_labelled"]
        return {**dict(zip(names, numbers, strict=True)), "topology_error": error}

    def _summary(self, rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        loss = sum(weight * means[name] for name, weight in self.weights.items())
        monitors = {
            "reference_loss": _finite(loss),
            "topology_error": _finite(means["topology_error"]),
            "foreground_predicted": _finite(means["foreground_predicted"]),
            "foreground_labelled": _finite(means["foreground_labelled"]),
            "foreground_spread": _finite(float(np.std([row["foreground_predicted"] for row in rows]))),
        }
        return {"monitors": monitors, "reference_terms": {name: _finite(means[name]) for name in self.terms}}


def share_of_rank(count: int) -> range:
    """Which of `count` items this process works on; all of them outside a distributed run."""
    distributed = dist.is_available() and dist.is_initialized()
    return range(dist.get_rank(), count, dist.get_world_size()) if distributed else range(count)


def gathered(items: Mapping[int, Any]) -> list[Any]:
    """The items of all ranks in the order of their numbers, the same list on every rank."""
    every: list[Mapping[int, Any]] = [items]
    if dist.is_available() and dist.is_initialized():
        every = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(every, dict(items))
    return [item for _, item in sorted(pair for part in every for pair in part.items())]


def predicted_structures(view: View) -> Tensor:
    """(B, K, X, Y[, Z]) bool: the class of the largest logit, or each structure above 0.5; nothing in ignored voxels.

    Args:
        view: of logits and labels.
    """
    if view.softmax:
        predicted = structure_onehot(view.logits.argmax(1, keepdim=True), view.structures, valid=None, regions=False)
    else:
        predicted = view.logits > 0
    return predicted if view.valid is None else predicted & view.valid


def topology_error(
    predicted: NDArray[np.bool_], labelled: NDArray[np.bool_], labelled_betti: Sequence[tuple[int, ...]]
) -> float:
    """Mean over structures of two errors: of the Betti numbers, weight 0.3, and of the overlap, weight 0.7.

    That of the Betti numbers is |p - l| / (p + l), both summed over dimensions; that of the overlap is 1 - Dice. The
    first alone would do harm: it counts and does not locate, and the first blobs of a network number about as many as
    the labels, while a later network adds specks. Half and half they still were the best of a run on synthetic
    vessels. The weights are those of topology and geometry in the Vesuvius competition's score; later on Dice hardly
    moves, and the numbers decide.

    Args:
        predicted: (K, X, Y[, Z]) masks.
        labelled: the same of the labels.
        labelled_betti: (b0, b1, b2) of each labelled mask.

    Returns:
        In [0, 1]; 0 where the masks agree. Nothing against nothing is 0.
    """
    errors = []
    for ours, theirs, expected in zip(predicted, labelled, labelled_betti, strict=True):
        found = betti_numbers(ours)
        features, voxels = sum(found) + sum(expected), int(ours.sum()) + int(theirs.sum())
        wrong = sum(abs(p - q) for p, q in zip(found, expected, strict=True))
        dice = 2 * int((ours & theirs).sum()) / voxels if voxels else 1.0
        errors.append(_BETTI_WEIGHT * (wrong / features if features else 0.0) + (1 - _BETTI_WEIGHT) * (1 - dice))
    return float(np.mean(errors))


def _central(structures: Tensor) -> NDArray[np.bool_]:
    """(K, X, Y[, Z]) masks of the middle of a patch; of many structures their union."""
    edge, masks = _TOPOLOGY_EDGE[structures.ndim - 2], structures[0]
    for axis, size in enumerate(masks.shape[1:], start=1):
        if size > edge:
            masks = masks.narrow(axis, (size - edge) // 2, edge)
    if len(masks) > _MOST_STRUCTURES:
        masks = masks.any(0, keepdim=True)
    return masks.cpu().numpy()


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
