"""summary_topo.json after nnU-Net's validation of a fold, without asking."""

from __future__ import annotations

import json
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nnunet_topo.errors import DataError
from nnunet_topo.evaluation.evaluate import evaluate_folders, write_evaluation
from nnunet_topo.metrics.registry import DEFAULT_METRICS, METRICS
from nnunet_topo.training import validation
from nnunet_topo.training.trainers import nnUNetTrainerTopo


@pytest.fixture
def untrained(make_trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Factory of trainers with a network; nnU-Net's process pools are threads, which start faster."""
    threads = SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=ThreadPool))
    for module in ("training.nnUNetTrainer.nnUNetTrainer", "evaluation.evaluate_predictions"):
        monkeypatch.setattr(f"nnunetv2.{module}.multiprocessing", threads)
    monkeypatch.setattr(validation, "default_num_processes", 1)

    def make(kind: str = "plain", **settings: Any) -> Any:
        trainer = make_trainer(nnUNetTrainerTopo, kind, **settings)
        trainer.initialize()
        return trainer

    return make


def folder(trainer: Any) -> Path:
    return Path(trainer.output_folder) / "validation"


def summary(trainer: Any) -> dict[str, Any]:
    return json.loads((folder(trainer) / "summary_topo.json").read_text())


def log(trainer: Any) -> str:
    return Path(trainer.log_file).read_text()


@pytest.mark.parametrize("kind", ["plain", "ignore", "classes", "regions"])
def test_it_lies_beside_nnunets_own_and_agrees_with_it(untrained: Callable[..., Any], kind: str) -> None:
    trainer = untrained(kind)
    trainer.perform_actual_validation()
    ours, stock = summary(trainer), json.loads((folder(trainer) / "summary.json").read_text())
    assert ours["errors"] == []
    assert [Path(case["prediction_file"]).name for case in ours["metric_per_case"]] == ["c2.nii.gz", "c3.nii.gz"]
    for key, value in stock["foreground_mean"].items():
        assert ours["foreground_mean"][key] == pytest.approx(value, nan_ok=True)
    assert list(ours["mean"]) == list(stock["mean"])
    assert {METRICS[name].key for name in DEFAULT_METRICS} <= ours["foreground_mean"].keys()
    again = evaluate_folders(
        trainer.preprocessed_dataset_folder_base + "/gt_segmentations", folder(trainer), processes=1, chill=True,
        dataset_json=trainer.dataset_json, progress=False,
    )  # fmt: skip
    assert ours["foreground_mean"] == pytest.approx(again.summary["foreground_mean"], nan_ok=True)


def test_its_means_stand_in_the_log_and_go_to_other_loggers(untrained: Callable[..., Any]) -> None:
    trainer = untrained()
    logged: dict[str, Any] = {}
    trainer.logger.loggers.append(SimpleNamespace(log_summary=logged.__setitem__))
    trainer.perform_actual_validation()
    means = summary(trainer)["foreground_mean"]
    for name in DEFAULT_METRICS:
        value = means[METRICS[name].key]
        assert f"mean validation {name}: {value:.4g}" in log(trainer)
        assert logged[f"final_val/foreground_{name}"] == pytest.approx(value, nan_ok=True)


def test_only_the_first_process_writes_it(untrained: Callable[..., Any]) -> None:
    trainer = untrained()
    trainer.local_rank = 1
    trainer.perform_actual_validation()
    assert (folder(trainer) / "c2.nii.gz").is_file()
    assert not (folder(trainer) / "summary_topo.json").exists()


def test_a_training_does_not_end_over_it(untrained: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = untrained()
    for error in (None, OSError("disk full"), DataError("labels: broken."), RuntimeError("dead worker")):

        def write(*arguments: Any, error: Exception | None = error) -> None:
            if error:
                raise error
            write_evaluation(*arguments)

        monkeypatch.setattr(validation, "write_evaluation", write)
        if error is None:
            trainer.perform_actual_validation()
        else:
            validation.summarize_validation(trainer)
            assert f"summary_topo.json was not written: {error}" in log(trainer)
        # An older one would pass for that of the new predictions.
        assert (folder(trainer) / "summary_topo.json").exists() == (error is None)
        assert (folder(trainer) / "summary_topo.csv").exists() == (error is None)


def test_a_case_that_cannot_be_scored_is_named(untrained: Callable[..., Any]) -> None:
    trainer = untrained()
    trainer.perform_actual_validation()
    (folder(trainer) / "c3.nii.gz").write_bytes(b"no image")
    validation.summarize_validation(trainer)
    assert [Path(case["prediction_file"]).name for case in summary(trainer)["metric_per_case"]] == ["c2.nii.gz"]
    assert "not in summary_topo.json: c3: " in log(trainer)


def test_references_of_other_folds_are_no_problem(untrained: Callable[..., Any]) -> None:
    trainer = untrained(fold=1)
    trainer.perform_actual_validation(save_probabilities=True)
    assert "not in summary_topo.json" not in log(trainer)
    assert (folder(trainer) / "c0.npz").is_file()
