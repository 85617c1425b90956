"""Gaussian noise on weights, relative to the size of each tensor and the same on every rank and device."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import nn

from nnunet_topo.errors import ConfigError
from nnunet_topo.recipe import Noise, Recipe
from nnunet_topo.training.checkpoint import bare_network
from nnunet_topo.training.optimization import matching_parameters


def require_noisy_parameters(network: nn.Module, recipe: Recipe) -> None:
    """Raise when noise that the recipe may ask for later would find no parameter to go to.

    Args:
        network: its frozen parameters are frozen already.
        recipe: of the run.

    Raises:
        ConfigError: a pattern that matches no parameter, or `trainable` freezes all that match.
    """
    escapes = recipe.plateau.actions if recipe.plateau else ()
    if recipe.noise is None and "noise" not in escapes:
        return
    patterns = (recipe.noise or Noise()).parameters
    matching = matching_parameters(bare_network(network), patterns, "noise.parameters")
    if not any(parameter.requires_grad for parameter in matching.values()):
        raise ConfigError(
            f"noise.parameters: expected patterns that match a trainable parameter, got {list(patterns)} while "
            f"trainable is {list(recipe.trainable)}. recipe '{recipe.name}'. Name parameters that are not frozen."
        )


def add_noise(network: nn.Module, std: float, seed: int, patterns: str | Sequence[str]) -> dict[str, float]:
    """Add noise to the trainable parameters whose names match.

    Each element of a tensor W gets a draw from N(0, std * |W| / sqrt(numel)), so `std` is the relative change of every
    tensor, large or small. A tensor of zeros stays as it is. The draws depend on the seed and the parameter's name
    alone and are made on the CPU.

    Args:
        network: changed in place.
        std: relative, > 0.
        seed: of this occasion; mix the epoch into it, or every epoch repeats the draws of the first.
        patterns: "all" or shell-style patterns of parameter names, as in a recipe's `noise.parameters`.

    Returns:
        Norm of the noise over norm of the tensor, by name of every tensor that changed.

    Raises:
        ConfigError: a pattern that matches no parameter.
    """
    relative = {}
    for name, parameter in matching_parameters(bare_network(network), patterns, "noise.parameters").items():
        if not parameter.requires_grad:
            continue
        # Norms are taken on the CPU too: a GPU sums in another order, and ranks must agree to the last bit.
        values = parameter.detach().cpu().double()
        norm = float(values.norm())
        if norm == 0 or not torch.isfinite(values).all():
            continue
        generator = torch.Generator().manual_seed(_seed_of(seed, name))
        noise = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        noise *= std * norm / values.numel() ** 0.5
        with torch.no_grad():
            parameter.copy_(values + noise)
        relative[name] = float(noise.norm()) / norm
    return relative


def _seed_of(seed: int, name: str) -> int:
    """63 bits that differ from parameter to parameter, and not between Python processes as hash() does."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "little") >> 1
