"""Optimiser, learning-rate schedule and frozen parameters of a recipe."""

from __future__ import annotations

from fnmatch import fnmatchcase

import torch
from torch import nn

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
    parameters = dict(bare_network(network).named_parameters())
    for pattern in recipe.trainable:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            raise ConfigError(
                f"trainable: expected patterns that match parameter names of the network, got '{pattern}'. "
                f"recipe '{recipe.name}'.{nearest(pattern, parameters)} Names look like '{next(iter(parameters))}'."
            )
    frozen = 0
    for name, parameter in parameters.items():
        if not any(fnmatchcase(name, pattern) for pattern in recipe.trainable):
            parameter.requires_grad_(False)
            frozen += 1
    return frozen


def keep_frozen_statistics(network: nn.Module) -> None:
    """Put batch-norm layers whose parameters are all frozen into evaluation mode, so that their statistics stay too."""
    for module in bare_network(network).modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            parameters = list(module.parameters(recurse=False))
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()


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
