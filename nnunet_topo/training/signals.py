"""Signals that ask a training to stop: noted when they come, acted upon between two steps."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import distributed as dist

# 143 is what a shell reports of a process that SIGTERM ended; 75 is EX_TEMPFAIL of sysexits.h: try again later.
EXIT_CODES = {"SIGTERM": 143, "SIGUSR1": 75, "SIGINT": 130}
DDP_CHECK_EVERY = 10


class StopSignals:
    """Handlers for SIGTERM and SIGUSR1 that only note the signal; those before them come back at the end.

    They are installed in the main thread only, elsewhere this does nothing. Under DDP SIGINT is one of them: torch
    sends it to the ranks when the process that started them is gone, which SIGTERM ends at once.

    nnU-Net's augmentation workers are forked from the process and inherit the handlers. A scheduler signals them too,
    and without them there is no next step to stop behind: a first signal leaves them alive as long as their parent is.

    Args:
        is_ddp: whether other ranks train along; they stop at the same step.
    """

    def __init__(self, *, is_ddp: bool = False) -> None:
        self.received: str | None = None
        self._is_ddp = is_ddp
        self._names = [name for name in EXIT_CODES if hasattr(signal, name) and (is_ddp or name != "SIGINT")]
        self._previous: dict[str, Any] = {}
        self._process = 0
        self._was_spared = False

    def __enter__(self) -> StopSignals:
        """Install the handlers."""
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            for name in self._names:
                self._previous[name] = signal.signal(getattr(signal, name), self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Put the handlers before these back."""
        for name, handler in self._previous.items():
            # None stands for a handler that was not installed from Python and cannot be put back.
            signal.signal(getattr(signal, name), signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._process:
            self.received = signal.Signals(number).name
        elif self._was_spared or os.getppid() != self._process:
            os._exit(128 + number)
        else:
            self._was_spared = True

    def pending(self, step: int, device: torch.device) -> str | None:
        """Name of the signal to stop for behind this step, None to go on; the same on all ranks.

        Args:
            step: the number of the step, equal on all ranks. They ask each other every `DDP_CHECK_EVERY` steps only,
                since the answer has to be waited for.
            device: where the ranks exchange tensors.
        """
        if not self._is_ddp:
            return self.received
        if step % DDP_CHECK_EVERY:
            return None
        names = list(EXIT_CODES)
        code = torch.tensor(1 + names.index(self.received) if self.received else 0, device=device)
        dist.all_reduce(code, dist.ReduceOp.MAX)
        return names[int(code) - 1] if int(code) else None
