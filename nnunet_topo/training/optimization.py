"""Optimiser, learning-rate schedule and frozen parameters of a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from nnunet_topo.control import LearningRateControl
from nnunet_topo.errors import ConfigError, nearest
from nnunet_topo.recipe import Recipe
from nnunet_topo.training.checkpoint import bare_network


def freeze_parameters(network: nn.Module, recipe: Recipe) -> int:
    """Switch off the gradient of every parameter that `trainable` does not match.

    Args:
        network: changed in place.
        recipe: `trainable` is "all" or shell-style patterns such as "decoder.stages.3.*", matched against whole
            parameter names.

    Returns:
        Number of parameter tensors frozen.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    if recipe.trainable == "all":
        return 0
    network = bare_network(network)
    trainable = matching_parameters(network, recipe.trainable, "trainable")
    frozen = [parameter for name, parameter in network.named_parameters() if name not in trainable]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return len(frozen)


def matching_parameters(network: nn.Module, patterns: str | Sequence[str], setting: str) -> dict[str, nn.Parameter]:
    """Parameters by name whose whole name matches one of the shell-style patterns.

    A negative number between two dots counts from the end: `decoder.stages.-1.*` is the last stage, however many the
    network has.

    Args:
        network: bare, without wrappers.
        patterns: "all" or a sequence of patterns.
        setting: the recipe's key, for the message.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    parameters = dict(network.named_parameters())
    if isinstance(patterns, str):
        return parameters
    patterns = [_counted_from_the_end(pattern, parameters) for pattern in patterns]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            raise ConfigError(
                f"{setting}: expected patterns that match parameter names of the network, got '{pattern}'."
                f"{nearest(pattern, parameters)} Names look like '{next(iter(parameters))}'."
            )
    return {
        name: parameter
        for name, parameter in parameters.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _counted_from_the_end(pattern: str, names: Iterable[str]) -> str:
    """The pattern with `.-n.` replaced by the index that it means."""
    found = re.match(r"([\w.]+)\.-(\d+)\.", pattern)
    if found is None:
        return pattern
    indices = {int(index) for name in names for index in re.findall(rf"^{re.escape(found[1])}\.(\d+)\.", name)}
    return f"{found[1]}.{max(indices, default=-1) + 1 - int(found[2])}.{pattern[found.end() :]}"


def keep_frozen_statistics(network: nn.Module) -> None:
    """Put batch-norm layers whose parameters are all frozen into evaluation mode, so that their statistics stay too."""
    for layer, frozen in batch_norm_layers(network):
        if frozen:
            layer.eval()


def batch_norm_layers(network: nn.Module) -> list[tuple[BatchNorm, bool]]:
    """Batch-norm layers, and of each whether it has parameters that are all frozen."""
    layers = [module for module in bare_network(network).modules() if isinstance(module, BatchNorm)]
    parameters = [list(layer.parameters(recurse=False)) for layer in layers]
    return [
        (layer, bool(own) and not any(parameter.requires_grad for parameter in own))
        for layer, own in zip(layers, parameters, strict=True)
    ]


def build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Optimiser over the trainable parameters; `sgd` is nnU-Net's own (Nesterov momentum)."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    settings = recipe.optimizer
    if settings.name == "adamw":
        return torch.optim.AdamW(parameters, settings.lr, weight_decay=settings.weight_decay)
    momentum = settings.momentum or 0.0
    return torch.optim.SGD(
        parameters, settings.lr, weight_decay=settings.weight_decay, momentum=momentum, nesterov=momentum > 0
    )


class EpochLearningRate:
    """What nnU-Net calls its lr_scheduler: sets the learning rate of an epoch on every parameter group.

    Args:
        optimizer: its groups are changed in place.
        control: knows the learning rate of an epoch.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, control: LearningRateControl) -> None:
        self.optimizer = optimizer
        self.control = control

    def step(self, epoch: int) -> None:
        """Set the learning rate of epoch `epoch` (0-based)."""
        learning_rate = self.control.learning_rate(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
