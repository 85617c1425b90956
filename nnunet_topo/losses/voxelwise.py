"""Terms that look at one voxel at a time: ce, focal, boundary, and the means over them: entropy, variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nnunet_topo.errors import ConfigError
from nnunet_topo.functional.boundary import band_weights, boundary_loss
from nnunet_topo.functional.cross_entropy import class_weight_map, mean_cross_entropy
from nnunet_topo.functional.entropy import binary_entropy, categorical_entropy, entropy_floor_loss
from nnunet_topo.functional.focal import focal_loss
from nnunet_topo.functional.masks import select_valid
from nnunet_topo.functional.variance import variance_hinge_loss, variance_legacy_loss
from nnunet_topo.losses import checks
from nnunet_topo.losses.term import Term
from nnunet_topo.losses.view import View


def _weight_map(weights: Sequence[float], view: View) -> Tensor:
    """Weights by true class, 0 in ignored voxels."""
    if len(weights) != view.structures + 1:
        raise ConfigError(
            f"class_weights: expected {view.structures + 1} numbers, background first, got {len(weights)}. "
            "Give one for each class of the dataset."
        )
    weight_map = class_weight_map(weights, view.logits, index=view.index, onehot=view.onehot)
    return select_valid(weight_map, view.valid)


class CrossEntropy(Term):
    """`ce`: cross-entropy, the mean over valid voxels (and structures, where each is a sigmoid). Range [0, inf).

    Args:
        class_weights: one number a class, background first; voxels are weighted by their true class and the sum is
            divided by the sum of the weights, as torch does: a higher weight makes missing that class dearer.
        **common: see `Term`.
    """

    at_all_scales = True

    def __init__(self, *, class_weights: Sequence[float] | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.class_weights = checks.class_weights("class_weights", class_weights)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `mean_cross_entropy`."""
        weights = None if self.class_weights is None else _weight_map(self.class_weights, view)
        return mean_cross_entropy(view.cross_entropy, view.map_count, weights=weights, batch_dice=self.batch_dice)


class Focal(Term):
    """`focal`: focal loss, the mean over valid voxels. Range [0, inf).

    Args:
        alpha: factor on voxels whose true class is a foreground structure, 1 - alpha on background, in [0, 1]. Above
            0.5 missed foreground is dearer, below it false foreground is. None: no such factor.
        gamma: >= 0, how strongly voxels that are already right are discounted; 0 is cross-entropy.
        class_weights: one number a class, background first, multiplied in by true class and not normalised away: a
            higher weight makes missing that class dearer.
        **common: see `Term`.
    """

    at_all_scales = True

    def __init__(
        self,
        *,
        alpha: float | None = None,
        gamma: float = 2.0,
        class_weights: Sequence[float] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.alpha = None if alpha is None else checks.number("alpha", alpha, low=0.0, high=1.0)
        self.gamma = checks.number("gamma", gamma, low=0.0)
        self.class_weights = checks.class_weights("class_weights", class_weights)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `focal_loss`."""
        weights = None
        if self.alpha is not None or self.class_weights is not None:
            by_class = self.class_weights or (1.0,) * (view.structures + 1)
            if self.alpha is not None:
                by_class = ((1.0 - self.alpha) * by_class[0], *(self.alpha * weight for weight in by_class[1:]))
            weights = _weight_map(by_class, view)
        return focal_loss(
            view.cross_entropy, view.map_count, gamma=self.gamma, weights=weights, batch_dice=self.batch_dice
        )


class Entropy(Term):
    """`entropy`: max(0, floor - mean entropy) in nats. Range [0, floor].

    It rewards under-confidence: a perfect, certain mask pays the whole `floor`. For repeating the diary.

    Args:
        floor: nats, >= 0.
        **common: see `Term`.
    """

    def __init__(self, *, floor: float = 0.3, **common: Any) -> None:
        super().__init__(**common)
        self.floor = checks.number("floor", floor, low=0.0)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `entropy_floor_loss`."""
        entropy = categorical_entropy(view.log_probabilities) if view.softmax else binary_entropy(view.probabilities)
        entropy = select_valid(entropy, view.valid)
        return entropy_floor_loss(entropy, view.map_count, floor=self.floor, batch_dice=self.batch_dice)


class Variance(Term):
    """`variance`: the prediction should vary as much as the labels do.

    Args:
        form: "hinge", max(0, 1 - var(p) / var(y)), range [0, 1], 0 for a perfect mask; or "legacy", the diary's
            (1 - var(p))^2 + max(0, 0.5 - mean entropy), range 0.83 to 1.5, which no prediction satisfies and a perfect
            mask does worse on (1.06 to 1.41) than a constant 0.5 (1.00).
        **common: see `Term`.
    """

    FORMS = ("hinge", "legacy")

    def __init__(self, *, form: str = "hinge", **common: Any) -> None:
        super().__init__(**common)
        if form not in self.FORMS:
            raise ConfigError(f"form: expected one of {', '.join(self.FORMS)}, got {form!r}.")
        self.form = form

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `variance_hinge_loss` and `variance_legacy_loss`."""
        shared: dict[str, Any] = {"valid": view.valid, "batch_dice": self.batch_dice}
        if self.form == "legacy":
            return variance_legacy_loss(view.probabilities, view.count, **shared)
        return variance_hinge_loss(view.probabilities, view.onehot, view.count, **shared)


class Boundary(Term):
    """`boundary`: cross-entropy near the boundary of each structure. Range [0, inf).

    Not the boundary loss of Kervadec et al. Voxels outside the band do not count: never use it alone.

    Args:
        inner: distance up to which a voxel has weight 1, >= 0, in units of the smallest voxel edge.
        outer: distance from which it has weight 0, > inner, same unit.
        **common: see `Term`; `spacing` matters here.
    """

    target_names = ("signed_distance",)

    def __init__(self, *, inner: float = 3.0, outer: float = 5.0, **common: Any) -> None:
        super().__init__(**common)
        self.inner = checks.number("inner", inner, low=0.0)
        self.outer = checks.number("outer", outer, low=self.inner, high=1e4, above=True)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `boundary_loss`."""
        distance = self.label_target("signed_distance", view, targets)
        weights = band_weights(distance, inner=self.inner, outer=self.outer)
        return boundary_loss(view.cross_entropy, weights, valid=view.valid, batch_dice=self.batch_dice)
