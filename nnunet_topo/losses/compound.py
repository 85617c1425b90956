"""The weighted sum of terms that a trainer minimises."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from nnunet_topo.errors import ConfigError, ShapeError, nearest
from nnunet_topo.losses.registry import NNUNET_TERM
from nnunet_topo.losses.term import Term, full_precision
from nnunet_topo.losses.view import View


class CompoundLoss(nn.Module):
    """Weighted sum of terms, with deep supervision for those that want it.

    Terms share one softmax and one one-hot a scale; those with another `scnp` have their own. Weights are plain python
    floats outside of any compiled module: changing them recompiles nothing. A term of weight 0 does no work at all.
    Until `set_weights` is called every weight is 1.

    Args:
        terms: by name; all with the same ignore label and regions.
        scale_weights: deep supervision's weight of each output, full resolution first; None without deep supervision.
        stock: nnU-Net's own loss, the term `nnunet`. It is called as it would be by nnU-Net, inside autocast if any.
        keep_unused_heads: connect every output to the loss, with zero gradient where no term uses it:
            DistributedDataParallel takes parameters without a gradient for an error.

    Attributes:
        values: detached unweighted value () of every active term of the last forward pass.
        target_names: label-derived targets that any term, whatever its weight, would like to be handed.

    Raises:
        ConfigError: terms that disagree about the ignore label or regions; no term; scale weights that are all 0.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        *,
        scale_weights: Sequence[float] | None,
        stock: nn.Module | None = None,
        keep_unused_heads: bool = False,
    ) -> None:
        super().__init__()
        self.terms = dict(terms)
        self._modules_of_terms = nn.ModuleList(terms.values())  # moves users' buffers; a ModuleDict refuses some names
        self.stock = stock
        self.scale_weights = None if scale_weights is None else tuple(float(weight) for weight in scale_weights)
        self.keep_unused_heads = keep_unused_heads
        settings = {(term.ignore_label, term.regions) for term in terms.values()}
        if len(settings) > 1:
            raise ConfigError(
                f"terms: expected one ignore_label and one regions for all, got {sorted(settings, key=str)}. "
                "Pass the same to every make_term."
            )
        if self.scale_weights is not None and not any(self.scale_weights):
            raise ConfigError(
                f"scale_weights: expected at least one other than 0, got {self.scale_weights}. "
                "A network needs at least 3 stages for nnU-Net's deep supervision weights."
            )
        self.weights: dict[str, float] = {}
        self.set_weights(dict.fromkeys(self._names(), 1.0))
        self.values: dict[str, Tensor] = {}
        self.target_names = tuple(dict.fromkeys(name for term in terms.values() for name in term.target_names))

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Sets the weight of every term; terms not named get 0.

        Raises:
            ConfigError: a name that is not a term of this loss, a weight that is negative or not finite, or all 0.
        """
        names = self._names()
        for name, weight in weights.items():
            if name not in names:
                raise ConfigError(f"weights: expected names of {', '.join(names)}, got {name!r}.{nearest(name, names)}")
            if not math.isfinite(weight) or weight < 0:
                raise ConfigError(f"weights.{name}: expected a finite number >= 0, got {weight!r}. Correct the recipe.")
        if not any(weights.values()):
            raise ConfigError(f"weights: expected at least one > 0, got {dict(weights)}. Name a term to train with.")
        self.weights = {name: float(weights.get(name, 0.0)) for name in names}

    def forward(self, outputs: Tensor | Sequence[Tensor], targets: Tensor | Sequence[Tensor]) -> Tensor:
        """Weighted sum of the active terms.

        Args:
            outputs: logits (B, C, X, Y[, Z]), or one such tensor a scale, full resolution first.
            targets: labels as in `Term.forward`, or a list: the labels of each scale, then the label-derived targets
                of `target_names`, in that order, at full resolution. Without those the terms compute them.

        Returns:
            () float32.

        Raises:
            ShapeError: another number of outputs or targets, or shapes that do not fit.
        """
        heads = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        scales = (1.0,) if isinstance(outputs, Tensor) or self.scale_weights is None else self.scale_weights
        labels, extras = self._split(heads, scales, [targets] if isinstance(targets, Tensor) else list(targets))
        self.values = {}
        weighted: list[Tensor] = []
        if self.stock is not None and self.weights[NNUNET_TERM]:
            value = self.stock(outputs, labels[0] if isinstance(outputs, Tensor) else labels)
            self.values[NNUNET_TERM] = value.detach()
            weighted.append(self.weights[NNUNET_TERM] * value)
        views: dict[tuple[int, int], View] = {}
        with full_precision(heads[0].device.type):
            for name, term in self.terms.items():
                if self.weights[name]:
                    value = _over_scales(term, heads, labels, extras, scales, views)
                    self.values[name] = value.detach()
                    weighted.append(self.weights[name] * value)
            if self.keep_unused_heads:
                # The sum of nothing is 0, also for a head that holds inf or NaN.
                weighted.extend(head[:0].sum(dtype=weighted[0].dtype) for head in heads)
        return sum(weighted[1:], start=weighted[0])

    def _names(self) -> tuple[str, ...]:
        return (*self.terms, NNUNET_TERM) if self.stock is not None else tuple(self.terms)

    def _split(
        self, heads: Sequence[Tensor], scales: Sequence[float], targets: Sequence[Tensor]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Labels of each scale, and the label-derived targets by name."""
        if len(heads) != len(scales):
            raise ShapeError(
                f"outputs: expected {len(scales)} (one for each scale weight), got {len(heads)}. "
                "Deep supervision must be on in network and loss alike."
            )
        n = len(heads)
        if len(targets) not in (n, n + len(self.target_names)):
            raise ShapeError(
                f"targets: expected {n} label maps, alone or followed by {list(self.target_names)}, got {len(targets)} "
                "tensors. Use AppendLabelTargets with the target_names of this loss."
            )
        return list(targets[:n]), dict(zip(self.target_names, targets[n:], strict=False))


def _over_scales(
    term: Term,
    heads: Sequence[Tensor],
    labels: Sequence[Tensor],
    extras: Mapping[str, Tensor],
    scales: Sequence[float],
    views: dict[tuple[int, int], View],
) -> Tensor:
    """Unweighted value of one term: summed over the scales, or at full resolution."""
    values = []
    for scale, weight in enumerate(scales if term.at_all_scales else (1.0,)):
        if weight:
            key = scale, term.scnp
            if key not in views:
                views[key] = term.view(heads[scale], labels[scale])
            values.append(weight * term.evaluate(views[key], extras if scale == 0 else {}))
    return sum(values[1:], start=values[0])
