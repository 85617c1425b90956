"""What `nnunet-topo check` has to say about one file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that is wrong, or likely wrong, and how to mend it.

    Attributes:
        severity: `error` when nnU-Net would fail or silently train on wrong data, `warning` otherwise.
        check: which check it was, as in `undeclared-label`.
        file: path of the file or folder concerned.
        message: what was expected and what was found.
        mend: what to do.
    """

    severity: Severity
    check: str
    file: str
    message: str
    mend: str


def count_errors(findings: Iterable[Finding]) -> int:
    """Number of findings that are errors."""
    return sum(finding.severity == "error" for finding in findings)
