"""The conflict meter: in which directions the loss terms pull the same weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nnunet_topo.losses import Term
from nnunet_topo.training.checkpoint import bare_network
from nnunet_topo.training.patches import Patch


def gradient_conflict(
    network: nn.Module, terms: Mapping[str, Term], patches: Sequence[Patch], device: torch.device
) -> dict[str, float | None]:
    """Cosine between the gradients of every two terms with respect to all trainable parameters.

    1: the two ask for the same change, 0: they do not touch, -1: what helps the one harms the other. Terms are measured
    at full resolution, unweighted, in evaluation mode and in float32: under GradScaler small gradients would vanish.
    Weights, gradients of the running step and random states stay as they are.

    Args:
        network: on `device`.
        terms: two or more, by name.
        patches: their gradients are summed.
        device: of the network.

    Returns:
        `{"dice|boundary": cosine}` for every pair in the order of `terms`; None where a gradient is 0 or not finite.
    """
    bare = bare_network(network)
    parameters = [parameter for parameter in bare.parameters() if parameter.requires_grad]
    was_training = bare.training
    bare.eval()
    try:
        with torch.enable_grad():
            gradients = _summed_gradients(bare, parameters, terms, patches, device)
    finally:
        bare.train(was_training)
    pairs = list(itertools.combinations(gradients, 2))
    return {f"{a}|{b}": _cosine(gradients[a], gradients[b]) for a, b in pairs}


def _summed_gradients(
    network: nn.Module,
    parameters: Sequence[nn.Parameter],
    terms: Mapping[str, Term],
    patches: Sequence[Patch],
    device: torch.device,
) -> dict[str, Tensor]:
    """Gradient of each term over all parameters as one vector, (P,) float32."""
    sums: dict[str, Tensor] = {}
    for patch in patches:
        for name, value in patch.evaluated(network, terms, device)[1].items():
            if not value.requires_grad:  # a term that has nothing to say about this patch
                continue
            found = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
            vector = torch.cat([gradient.flatten().float() for gradient in found])
            sums[name] = sums[name] + vector if name in sums else vector
    return sums


def _cosine(a: Tensor, b: Tensor) -> float | None:
    cosine = float(torch.dot(a, b) / (a.norm() * b.norm()))
    # Rounding can carry the cosine of two parallel vectors past 1.
    return max(-1.0, min(1.0, cosine)) if math.isfinite(cosine) else None
