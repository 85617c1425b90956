"""The sections of a recipe as frozen dataclasses: keys, defaults and ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass

from nnunet_topo._validation import (
    FrozenMapping,
    Variant,
    Where,
    boolean,
    choice,
    integer,
    number,
    optional,
    setting,
    several,
    text,
)

POLICIES = ("diary_0.3", "diary_0.85", "diary_0.15", "head", "conservative")
ESCAPES = ("learning_rate", "noise", "loss_weights", "momentum")
# None of these changes when the loss weights do. Lower is better for losses and errors, higher for Dice.
MONITORS = ("reference_loss", "topology_error", "ema_pseudo_dice", "pseudo_dice")


def _start(value: object, where: Where) -> int | float:
    """An epoch (int) or a fraction of the run (float in [0, 1))."""
    expected = "an integer epoch >= 0, or a fraction of the run in [0, 1)"
    if isinstance(value, int) and not isinstance(value, bool):
        return integer(0)(value, where)
    candidate = number()(value, Where(where.key, where.source, "0.25"))
    if not 0 <= candidate < 1:
        is_epoch = candidate >= 1 and candidate.is_integer()
        where.fail(expected, value, f"Write {int(candidate)} for that epoch." if is_epoch else "Correct it there.")
    return candidate


def epoch_of(start: int | float, epochs: int) -> int:
    """Epoch of a start: itself when an int, the nearest epoch (halves up) of that fraction of the run when a float."""
    return start if isinstance(start, int) else math.floor(start * epochs + 0.5)


def _weights(value: object, where: Where) -> FrozenMapping:
    if not isinstance(value, Mapping):
        where.fail("a mapping of loss terms to weights", value, "Write for example 'weights: {dice: 1.0}'.")
    check = number(at_least=0)
    return FrozenMapping({str(term): check(weight, where.child(term, "1.0")) for term, weight in value.items()})


def name_patterns(value: object, where: Where) -> str | tuple[str, ...]:
    """Check of `all`, or a list of shell-style patterns of parameter names; gives a tuple."""
    if value == "all":
        return "all"
    if not isinstance(value, (list, tuple)) or not value:
        where.fail(
            "all, or a list of parameter-name patterns", value, "Write for example '[\"decoder.seg_layers.*\"]'."
        )
    return several(text)(value, where)


@dataclass(frozen=True)
class Optimizer(Variant):
    """Optimiser; `momentum` (Nesterov) belongs to sgd."""

    name: str = setting("sgd", choice("sgd", "adamw"))
    lr: float = setting(1e-2, number(above=0))
    weight_decay: float = setting(3e-5, number(at_least=0))
    momentum: float | None = setting(0.99, number(at_least=0, below=1), only_for=("name", "sgd"))


@dataclass(frozen=True)
class LearningRateSchedule(Variant):
    """Learning rate over epochs, behind a linear warm-up of `warmup_epochs`."""

    name: str = setting("poly", choice("poly", "constant", "plateau", "cosine_restarts"))
    warmup_epochs: int = setting(0, integer(0))
    patience: int | None = setting(10, integer(1), only_for=("name", "plateau"))
    factor: float | None = setting(0.5, number(above=0, below=1), only_for=("name", "plateau"))
    threshold: float | None = setting(1e-4, number(at_least=0), only_for=("name", "plateau"))
    first_cycle_epochs: int | None = setting(10, integer(1), only_for=("name", "cosine_restarts"))
    cycle_factor: int | None = setting(2, integer(1), only_for=("name", "cosine_restarts"))
    minimum_lr: float | None = setting(1e-6, number(at_least=0), only_for=("name", "plateau", "cosine_restarts"))


@dataclass(frozen=True)
class Phase:
    """Loss weights from an epoch (int) or fraction of the run (float) on, reached over `ramp_epochs`."""

    start: int | float = setting(MISSING, _start, key="from")
    weights: Mapping[str, float] = setting(MISSING, _weights)
    ramp_epochs: int = setting(0, integer(0))

    def __post_init__(self) -> None:
        """Freeze the weights."""
        object.__setattr__(self, "weights", FrozenMapping(self.weights))


def _monitor(value: object, where: Where) -> str:
    """Name of a monitor that can drive a decision."""
    measured_only = ("validation_loss", "foreground_predicted", "foreground_labelled", "foreground_spread")
    if value in (*measured_only, "gradient_norm"):
        reason = "It changes when the loss weights do" if value == "validation_loss" else "It has no better or worse"
        where.fail(" or ".join(MONITORS), value, f"{reason}: choose one of those.")
    return choice(*MONITORS)(value, where)


@dataclass(frozen=True)
class Monitor:
    """Fixed validation patches, and which measurement drives which decision."""

    patches: int = setting(16, integer(1))
    seed: int = setting(0, integer(0, 2**32 - 1))
    smoothing_epochs: int = setting(3, integer(1))
    reference_weights: Mapping[str, float] | None = setting(None, optional(_weights))
    best: str = setting("topology_error", _monitor)
    plateau: str = setting("reference_loss", _monitor)
    rollback: str = setting("reference_loss", _monitor)
    lr_schedule: str = setting("reference_loss", _monitor)
    early_stopping: str = setting("reference_loss", _monitor)

    def __post_init__(self) -> None:
        """Freeze the reference weights."""
        if self.reference_weights is not None:
            object.__setattr__(self, "reference_weights", FrozenMapping(self.reference_weights))


@dataclass(frozen=True)
class Plateau:
    """Escape from a plateau: what counts as one, what is tried in which order, and its limits."""

    patience: int = setting(5, integer(1))
    threshold: float = setting(0.002, number(at_least=0))
    policy: str = setting("conservative", choice(*POLICIES))
    max_lr_scale: float = setting(5.0, number(at_least=1))
    max_interventions: int = setting(3, integer(1))
    cooldown: int = setting(5, integer(0))
    actions: tuple[str, ...] = setting(("learning_rate",), several(choice(*ESCAPES), distinct=True))
    evaluation_epochs: int = setting(5, integer(1))
    decay_epochs: int | None = setting(20, optional(integer(1)))
    noise_std: float = setting(1e-3, number(above=0))


@dataclass(frozen=True)
class Rollback:
    """Return to the best weights after sustained or catastrophic degradation; null switches one of them off."""

    degradation_epochs: int | None = setting(3, optional(integer(1)))
    catastrophic: float | None = setting(0.15, optional(number(above=0)))
    tolerance: float = setting(0.02, number(at_least=0))
    max_rollbacks: int = setting(3, integer(1))
    reset_momentum: bool = setting(True, boolean)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on the weights of `parameters`, every so many epochs."""

    start: int | float = setting(0, _start)
    every: int = setting(10, integer(1))
    std: float = setting(1e-3, number(above=0))
    decay: float = setting(0.9, number(above=0, at_most=1))
    parameters: str | tuple[str, ...] = setting(("decoder.stages.*", "decoder.seg_layers.*"), name_patterns)


@dataclass(frozen=True)
class Averaging(Variant):
    """Averaged weights for the final checkpoint: stochastic weight averaging or an exponential moving average."""

    kind: str = setting("none", choice("none", "swa", "ema"))
    start: int | float | None = setting(0.75, _start, only_for=("kind", "swa", "ema"))
    every: int | None = setting(1, integer(1), only_for=("kind", "swa"))
    lr: float | None = setting(None, number(above=0), only_for=("kind", "swa"))
    anneal_epochs: int | None = setting(10, integer(0), only_for=("kind", "swa"))
    decay: float | None = setting(0.999, number(above=0, below=1), only_for=("kind", "ema"))


@dataclass(frozen=True)
class EarlyStopping:
    """End of the run after `patience` epochs without improvement."""

    patience: int = setting(50, integer(1))


@dataclass(frozen=True)
class Network:
    """Overrides of nnU-Net's plans, applied by `nnunet-topo plan` only."""

    batch_size: int | None = setting(None, optional(integer(1)))
    patch_size: tuple[int, ...] | None = setting(None, optional(several(integer(1), lengths=(2, 3))))
    features: int | None = setting(None, optional(integer(1)))


@dataclass(frozen=True)
class Sampling:
    """How patches are drawn; the defaults are nnU-Net's own."""

    foreground: float = setting(0.33, number(at_least=0, at_most=1))
    probabilistic: bool = setting(False, boolean)
    mirror_axes: tuple[int, ...] | None = setting(None, optional(several(integer(0, 2), distinct=True)))


@dataclass(frozen=True)
class Inference:
    """Settings of prediction."""

    threshold: float = setting(0.5, number(above=0, below=1))
