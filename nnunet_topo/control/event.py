"""The interface between a control and the trainer, and what a control reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nnunet_topo import __version__
from nnunet_topo.control.action import Action
from nnunet_topo.errors import CheckpointError


@dataclass(frozen=True)
class Event:
    """Something that a control did, as it stands in the journal.

    Attributes:
        what: short name, such as "phase".
        why: the reason in a sentence.
        before: the value that was replaced, builtins only.
        after: the value that replaces it, builtins only.
        action: what the trainer has to do about it; it is no part of the journal.
    """

    what: str
    why: str
    before: Any = None
    after: Any = None
    action: Action | None = None


class Control(Protocol):
    """A state machine that the trainer asks at the borders of an epoch."""

    def start_epoch(self, epoch: int) -> list[Event]:
        """Get ready for epoch `epoch` (0-based) and report what changed."""

    def end_epoch(self, epoch: int, record: Mapping[str, Any]) -> list[Event]:
        """React to the finished epoch's journal line and report what changed."""

    def state_dict(self) -> dict[str, Any]:
        """State to keep in the checkpoint, builtins and tensors only."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state that `state_dict` gave."""


def load_control_states(controls: Mapping[str, Control], section: Mapping[str, Any], file: str) -> None:
    """Give every control the state that a checkpoint kept of it.

    Args:
        controls: by name.
        section: the checkpoint's `nnunet_topo`, with `controls` and `version`; empty for a checkpoint of stock nnU-Net.
        file: the checkpoint's path, for the message.

    Raises:
        CheckpointError: the checkpoint holds the state of a control that this version does not have.
    """
    for name, state in section.get("controls", {}).items():
        if name not in controls:
            raise CheckpointError(
                f"checkpoint: expected the state of {', '.join(controls)}, got that of '{name}'. {file}. It is of "
                f"nnunet-topo {section.get('version')}, this is {__version__}: install that version or a later one."
            )
        controls[name].load_state_dict(state)
