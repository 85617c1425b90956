"""A loss of the user's own as a term: `{class: my_pkg.my_module:MyLoss, ...}`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_topo.errors import ConfigError, ShapeError, nearest
from nnunet_topo.losses.term import Term
from nnunet_topo.losses.view import View


def check_reference(reference: Any) -> tuple[str, str]:
    """Module and attribute of a reference `package.module:Name`, without importing anything.

    Raises:
        ConfigError: not of that form.
    """
    if isinstance(reference, str):
        module, _, attribute = reference.partition(":")
        if all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))):
            return module, attribute
    raise ConfigError(f"class: expected 'package.module:Name', got {reference!r}.")


def _import(reference: str) -> Callable[..., Any]:
    module, attribute = check_reference(reference)
    mend = "Check the spelling, and that the package is installed in this environment."
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"class: expected an importable 'package.module:Name', got {reference!r}: {error}. {mend}"
        ) from error
    if not callable(found):
        raise ConfigError(f"class: expected a class, got {reference!r}, which is a {type(found).__name__}. {mend}")
    return found


def _accepted(function: Callable[..., Any]) -> tuple[list[str], bool]:
    """Names that can be passed by keyword, and whether any other name can."""
    parameters = inspect.signature(function).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in parameters if p.kind in named], any(p.kind == p.VAR_KEYWORD for p in parameters)


class UserTerm(Term):
    """Calls a loss of the user's own with (logits, labels), or (logits, labels, targets) where it takes three.

    It gets the logits in float32 with autocast off, and the labels as they are: masking ignored voxels, and pooling
    over ranks, is its own business. A class attribute `at_all_scales = True` applies it at every scale of deep
    supervision, `target_names = ("signed_distance",)` has label-derived targets passed in.

    Args:
        reference: `package.module:Name` of a class whose objects can be called (such as an nn.Module).
        parameters: passed to it by keyword.
        **common: see `Term`; those that its signature names are passed on too.

    Raises:
        ConfigError: it cannot be imported, built or called.
    """

    def __init__(self, reference: str, parameters: Mapping[str, Any], **common: Any) -> None:
        super().__init__(**common)
        factory = _import(reference)
        names, anything = _accepted(factory)
        for name in parameters:
            if name not in names and not anything:
                raise ConfigError(
                    f"{name}: expected a parameter of {reference} ({', '.join(names)}).{nearest(name, names)}"
                )
        settings = {name: value for name, value in common.items() if name in names}
        try:
            loss = factory(**{**settings, **parameters})
        except TypeError as error:
            raise ConfigError(f"class: {reference} cannot be built from the parameters given: {error}.") from error
        if not callable(loss):
            raise ConfigError(
                f"class: expected a class whose objects can be called, got {reference!r}. Give it a forward()."
            )
        self.reference = reference
        self.loss = loss
        self.at_all_scales = bool(getattr(loss, "at_all_scales", False))
        self.target_names = tuple(getattr(loss, "target_names", ()))
        self._takes_targets = _takes_three(loss.forward if isinstance(loss, nn.Module) else loss)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """Value of the user's loss."""
        logits = view.raw_logits if view.raw_logits.dtype == torch.float64 else view.raw_logits.float()
        arguments: list[Any] = [logits, view.labels]
        if self._takes_targets:
            arguments.append({name: self.label_target(name, view, targets) for name in self.target_names})
        value = self.loss(*arguments)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ShapeError(
                f"{self.reference}: expected a scalar tensor as the loss, got {got}. Average over the batch."
            )
        return value.reshape(())


def _takes_three(function: Callable[..., Any]) -> bool:
    parameters: Sequence[inspect.Parameter] = list(inspect.signature(function).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) >= 3 or any(p.kind == p.VAR_POSITIONAL for p in parameters)
