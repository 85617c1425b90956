"""Makes the helpers importable that tests and table share: pytest's importlib mode adds no folder to the path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fault_bench import Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A tiny dataset and a warm process; the trainings of all fault tests are forked from it."""
    with Bench(tmp_path_factory.mktemp("faults")) as made:
        yield made
