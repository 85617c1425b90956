"""The loss of a recipe, built for a dataset's labels and a configuration's network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import nn

from nnunet_topo.errors import ConfigError
from nnunet_topo.losses import NNUNET_TERM, CompoundLoss, Term, make_term
from nnunet_topo.recipe import Recipe

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager


def is_stock_loss(recipe: Recipe) -> bool:
    """Whether the recipe asks for nnU-Net's own loss and nothing else, in every phase."""
    return all(
        {name: weight for name, weight in phase.weights.items() if weight > 0} == {NNUNET_TERM: 1.0}
        for phase in recipe.phases
    )


def deep_supervision_weights(number_of_scales: int, *, is_ddp: bool, compiled: bool) -> list[float]:
    """nnU-Net's weights of the deep-supervision outputs, full resolution first, summing to 1.

    They halve with each resolution and the lowest gets none, except in an uncompiled distributed run, where a head
    without gradient would stop DistributedDataParallel.
    """
    weights = [1 / 2**scale for scale in range(number_of_scales)]
    if number_of_scales > 1:
        weights[-1] = 1e-6 if is_ddp and not compiled else 0.0
    total = sum(weights)
    return [weight / total for weight in weights]


def build_loss(
    recipe: Recipe,
    labels: LabelManager,
    *,
    spacing_mm: Sequence[float],
    batch_dice: bool,
    scale_weights: Sequence[float] | None,
    is_ddp: bool,
    stock: Callable[[], nn.Module],
) -> nn.Module:
    """Loss of a run.

    Args:
        recipe: its terms with a weight in any phase are built.
        labels: nnU-Net's label manager of the dataset.
        spacing_mm: one value > 0 per spatial axis of the patch, in the network's axis order.
        batch_dice: the configuration's setting.
        scale_weights: of the deep-supervision outputs, None without deep supervision.
        is_ddp: whether unused heads must stay connected for DistributedDataParallel.
        stock: makes nnU-Net's own loss.

    Returns:
        The very object that stock nnU-Net builds when the recipe asks for nothing else, otherwise a CompoundLoss.

    Raises:
        ConfigError: class weights that are not one for each class of the dataset.
    """
    if is_stock_loss(recipe):
        return stock()
    names = recipe.active_terms()
    _check_class_weights(recipe, names, labels)
    own = [name for name in names if name != NNUNET_TERM]
    terms = build_terms(recipe, own, labels, spacing_mm=spacing_mm, batch_dice=batch_dice)
    return CompoundLoss(
        terms,
        scale_weights=scale_weights,
        stock=stock() if NNUNET_TERM in names else None,
        keep_unused_heads=is_ddp,
    )


def build_terms(
    recipe: Recipe, names: Sequence[str], labels: LabelManager, *, spacing_mm: Sequence[float], batch_dice: bool
) -> dict[str, Term]:
    """Terms by name with the recipe's parameters, for a dataset's labels; arguments as in `build_loss`."""
    return {
        name: make_term(
            name,
            ignore_label=labels.ignore_label,
            regions=labels.has_regions,
            spacing=tuple(spacing_mm),
            batch_dice=batch_dice,
            **recipe.losses.get(name, {}),
        )
        for name in names
    }


def _check_class_weights(recipe: Recipe, names: Sequence[str], labels: LabelManager) -> None:
    classes = labels.num_segmentation_heads + (1 if labels.has_regions else 0)
    for name in names:
        weights = recipe.losses.get(name, {}).get("class_weights")
        if weights is not None and len(weights) != classes:
            raise ConfigError(
                f"losses.{name}.class_weights: expected {classes} numbers, background first, for the classes of this "
                f"dataset, got {list(weights)}. recipe '{recipe.name}'. Give one for each class."
            )
