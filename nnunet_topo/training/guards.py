"""Steps whose loss or gradient is not finite: skipped before the update, reported, and counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_topo.control import Event
from nnunet_topo.errors import DataError
from nnunet_topo.training.checkpoint import bare_network
from nnunet_topo.training.record import over_ranks

Outputs = Sequence[Mapping[str, Any]]


class NonFiniteGuard:
    """Lets a step update the weights, or not, the same on all ranks.

    Under DDP the norm of the gradient is that of the ranks' mean, equal on all of them; `poisoned` makes it NaN when
    the loss of any rank is not finite. So the ranks need to talk only when there is something to report.

    Args:
        limit: number of such steps in a row that ends the run.

    Attributes:
        in_a_row: how many there were since the last step that updated the weights.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_a_row = 0
        self._cases: list[str] = []

    def examine(
        self,
        loss: float,
        gradient_norm: float,
        terms: Mapping[str, float],
        cases: Sequence[str],
        scaler: torch.amp.GradScaler | None = None,
    ) -> Event | None:
        """What is wrong with a step, None when the optimiser (or its GradScaler) may have it.

        Args:
            loss: this rank's.
            gradient_norm: norm of the gradient before clipping, unscaled.
            terms: unweighted value of each term.
            cases: names of the cases in this rank's batch.
            scaler: one looks for its scale by overflowing now and then: that is left to it, unless the scale is so low
                that the network must be at fault.
        """
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            self.in_a_row = 0
            return None
        own: dict[str, Any] = {"loss": _shown(loss), "cases": [str(case) for case in cases]}
        reports = over_ranks({**own, "terms": {name: _shown(value) for name, value in terms.items()}})
        losses_are_finite = all(isinstance(one["loss"], float) for one in reports)
        if scaler is not None and losses_are_finite and scaler.get_scale() > 1:
            return None
        self.in_a_row += 1
        self._cases = [case for one in reports for case in one["cases"]]
        what = "gradient" if losses_are_finite else "loss"
        return Event(
            "step skipped",
            f"the {what} is not finite (gradient norm {gradient_norm}), {self.in_a_row} in a row of at most "
            f"{self.limit}, cases {', '.join(self._cases)}",
            after=reports[0] if len(reports) == 1 else reports,
        )

    @property
    def exhausted(self) -> bool:
        """Whether the run has to end."""
        return self.in_a_row >= self.limit

    def error(self, folder: str) -> DataError:
        """What ends the run.

        Args:
            folder: the fold's, where the last good state is.
        """
        return DataError(
            f"max_nonfinite_steps: expected fewer than {self.limit} steps in a row without a finite loss and gradient, "
            f"got {self.in_a_row}. {folder}; cases of the last one: {', '.join(self._cases)}. None of them changed the "
            "weights, and the state before them is on disk. Look at these cases ('nnunet-topo check', and the terms in "
            "topo_journal.jsonl), or train with a lower learning rate or gradient_clip."
        )


def poisoned(loss: Tensor) -> Tensor:
    """The loss with a NaN gradient where it is not finite itself; a finite one and its gradient keep every bit.

    Args:
        loss: () float.
    """
    return loss * torch.where(torch.isfinite(loss.detach()), 1.0, torch.nan)


def update_weights(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None, *, skip: bool) -> None:
    """nnU-Net's update with a gradient that is unscaled already, or none.

    Args:
        optimizer: changes the weights.
        scaler: its scale stays when the step is skipped: it is not at fault.
        skip: whether nothing may change.
    """
    if scaler is None:
        if not skip:
            optimizer.step()
        return
    if not skip:
        scaler.step(optimizer)
    scaler.update(scaler.get_scale() if skip else None)


def sound_steps(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs of the steps that were not skipped, whose means are an epoch's; all of them when every one was.

    Args:
        outputs: one mapping a step, `skipped` () bool the same on all ranks.
    """
    return [output for output in outputs if not output["skipped"]] or outputs


def is_finite(network: nn.Module) -> bool:
    """Whether every weight and every buffer is; a forward pass alone can spoil running statistics."""
    return all(bool(torch.isfinite(value).all()) for value in bare_network(network).state_dict().values())


def _shown(value: float) -> float | str:
    """NaN and infinities by name: the journal's null would not tell them apart."""
    return float(value) if np.isfinite(value) else str(float(value))
