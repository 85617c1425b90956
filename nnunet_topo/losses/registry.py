"""Names of the terms, and the way from a name and parameters to a term."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from nnunet_topo.errors import ConfigError, nearest
from nnunet_topo.functional.betti_engine import betti_engine
from nnunet_topo.losses.centreline import CbDice, ClDice, MedialSurfaceRecall, SkeletonRecall
from nnunet_topo.losses.distance_terms import Hausdorff, Kervadec
from nnunet_topo.losses.links import Connectivity, Separation
from nnunet_topo.losses.persistence import BettiMatching
from nnunet_topo.losses.structural import Dice, Tversky
from nnunet_topo.losses.term import Term
from nnunet_topo.losses.user import UserTerm, check_reference
from nnunet_topo.losses.voxelwise import Boundary, CrossEntropy, Entropy, Focal, Variance
from nnunet_topo.losses.worst import WorstNeighbour

TERMS: dict[str, type[Term]] = {
    "ce": CrossEntropy,
    "dice": Dice,
    "focal": Focal,
    "tversky": Tversky,
    "variance": Variance,
    "entropy": Entropy,
    "boundary": Boundary,
    "kervadec": Kervadec,
    "hausdorff": Hausdorff,
    "cldice": ClDice,
    "cbdice": CbDice,
    "skeleton_recall": SkeletonRecall,
    "medial_surface_recall": MedialSurfaceRecall,
    "connectivity": Connectivity,
    "separation": Separation,
    "scnp": WorstNeighbour,
    "betti_matching": BettiMatching,
}
"""The terms that exist."""

NNUNET_TERM = "nnunet"
"""Stock nnU-Net's own compound loss. Only a trainer can supply it: see the argument `stock` of `CompoundLoss`."""


def _own_parameters(term: type[Term]) -> list[str]:
    """Names of the parameters that a recipe may set: those of the class, and `scnp`, which every term has."""
    own = [p.name for p in inspect.signature(term).parameters.values() if p.kind == p.KEYWORD_ONLY]
    return own if issubclass(term, WorstNeighbour) else [*own, "scnp"]


def check_parameters(name: str, parameters: Mapping[str, Any], where: str) -> None:
    """Raises unless `make_term(name, **parameters)` could work, as far as can be told without importing anything.

    Args:
        name: of a term, or `nnunet`; any name when `parameters` holds `class`.
        parameters: of the term.
        where: file or place to name in the message.

    Raises:
        ConfigError: unknown term, unknown parameter (the nearest valid one is named), or a value out of range.
    """
    if "class" in parameters and name != NNUNET_TERM:
        try:
            check_reference(parameters["class"])
        except ConfigError as error:
            raise ConfigError(f"losses.{name}.{error} {where}. Name a class that can be imported.") from None
        return
    if name != NNUNET_TERM and name not in TERMS:
        valid = sorted((*TERMS, NNUNET_TERM))
        raise ConfigError(
            f"losses: expected one of {', '.join(valid)}, got {name!r}. {where}.{nearest(name, valid)} "
            "A loss of your own needs the key 'class'."
        )
    own = [] if name == NNUNET_TERM else _own_parameters(TERMS[name])
    for key in parameters:
        if key not in own:
            raise ConfigError(
                f"losses.{name}: expected {' or '.join(own) if own else 'no parameters'}, got {key!r}. {where}."
                f"{nearest(str(key), own) or ' Remove it.'}"
            )
    if name != NNUNET_TERM:
        try:
            TERMS[name](**parameters)
        except ConfigError as error:
            raise ConfigError(f"losses.{name}.{error} {where}. Correct the value.") from None


def make_term(
    name: str,
    *,
    ignore_label: int | None = None,
    regions: bool = False,
    spacing: Sequence[float] | None = None,
    batch_dice: bool = False,
    **parameters: Any,
) -> Term:
    """A loss term, for use inside nnU-Net or anywhere else.

    Args:
        name: a key of `TERMS`; any name together with the parameter `class`, 'package.module:Name' of the user's own.
        ignore_label: value of unlabelled voxels, or None. With regions only whether it is None matters.
        regions: labels are one-hot regions, the last channel the ignored voxels when there is an ignore label.
        spacing: voxel edges > 0 in the order of the spatial axes, any unit; None for cubic voxels.
        batch_dice: pool numerators and denominators over the batch and all ranks before taking ratios.
        **parameters: of the term, see its class.

    Returns:
        A module whose forward(logits, labels, targets=None) gives () float32; see `Term.forward`.

    Raises:
        ConfigError: unknown, not available here, or parameters that are unknown or out of range.
    """
    where = "make_term"
    check_parameters(name, parameters, where)
    common: dict[str, Any] = {
        "ignore_label": ignore_label,
        "regions": regions,
        "spacing": spacing,
        "batch_dice": batch_dice,
    }
    if "class" in parameters:
        own = dict(parameters)
        try:
            return UserTerm(own.pop("class"), own, **common)
        except ConfigError as error:
            raise ConfigError(f"losses.{name}.{error}") from error
    if name == NNUNET_TERM:
        raise ConfigError(
            f"losses: expected one of {', '.join(sorted(TERMS))}, got {name!r}, nnU-Net's own loss, which only "
            "a trainer can supply. Use ce and dice, or train with a recipe."
        )
    if name == "betti_matching":
        betti_engine()  # so that its absence shows here, not in the first step
    return TERMS[name](**common, **parameters)
