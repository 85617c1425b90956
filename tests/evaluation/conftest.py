"""Makes the helpers importable (pytest's importlib mode adds no folder to the path), and nnU-Net's folders."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from nnunet_models import Experiment


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Experiment]:
    """Factory: `experiment(labels)` gives empty nnU-Net folders, with nnU-Net's process pools made threads."""
    context = SimpleNamespace(Pool=ThreadPool)
    for module in (
        "nnunetv2.evaluation.evaluate_predictions",
        "nnunetv2.ensembling.ensemble",
        "nnunetv2.postprocessing.remove_connected_components",
    ):
        # Starting processes takes a hundred times as long as the work.
        monkeypatch.setattr(f"{module}.multiprocessing", SimpleNamespace(get_context=lambda _: context))
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path / variable))

    def make(labels: Mapping[str, object] | None = None) -> Experiment:
        return Experiment(tmp_path, labels or {"background": 0, "sheet": 1})

    return make
