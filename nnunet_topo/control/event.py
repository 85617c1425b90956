"""The interface between a control and the trainer, and what a control reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Event:
    """Something that a control did, as it stands in the journal.

    Attributes:
        what: short name, such as "phase".
        why: the reason in a sentence.
        before: the value that was replaced, builtins only.
        after: the value that replaces it, builtins only.
    """

    what: str
    why: str
    before: Any = None
    after: Any = None


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
