"""What a control asks the trainer to do: the controls decide, they touch no network.

An action comes as part of an `Event`, and the trainer executes it on every rank alike, in the order of the events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ScaleLearningRate:
    """Multiply the learning rate from the next epoch on: `LearningRateControl.scale(factor, decay_epochs)`.

    Attributes:
        factor: > 0, on the multiplier as it stands.
        decay_epochs: > 0, epochs after which the multiplier is back at 1. None: it stays.
    """

    factor: float
    decay_epochs: int | None


@dataclass(frozen=True)
class AddNoise:
    """Add Gaussian noise to the weights, once, before the epoch that comes next; behind the last there is none.

    Attributes:
        std: standard deviation > 0, relative to each tensor's norm.
        seed: of the noise's own generator, from recipe seed and epoch alone, so that all ranks draw the same.
        parameters: shell-style patterns of parameter names, or "all".
    """

    std: float
    seed: int
    parameters: str | tuple[str, ...]


@dataclass(frozen=True)
class ResetMomentum:
    """Empty the optimiser's state (momentum; both moments of adamw)."""


@dataclass(frozen=True)
class RestoreBest:
    """Go back to the kept weights, those of the last epoch in which `controls["kept_weights"].improved` was true.

    Schedules, counters, journal and epoch go on: only the weights (and the average that was kept with them) go back.

    Attributes:
        reset_momentum: empty the optimiser's state too, which belongs to the weights that are left.
        epoch: epoch at whose end the weights were kept.
    """

    reset_momentum: bool
    epoch: int


@dataclass(frozen=True)
class ScaleLossWeights:
    """Multiply weights of loss terms until the next phase begins: `PhaseControl.scale(factors)`.

    Attributes:
        factors: term -> factor > 0; terms that are not named keep their weight.
    """

    factors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StopTraining:
    """End the run behind this epoch, with the final checkpoint and the final validation."""


Action = ScaleLearningRate | AddNoise | ResetMomentum | RestoreBest | ScaleLossWeights | StopTraining
