"""After nnU-Net's validation of a fold: the metrics that it does not compute, in summary_topo.json and in the log."""

from __future__ import annotations

from pathlib import Path

from nnunetv2.configuration import default_num_processes
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_topo.errors import TopoError
from nnunet_topo.evaluation.evaluate import Evaluation, evaluate_folders, write_evaluation
from nnunet_topo.evaluation.score_predictions import SUMMARY_NAME
from nnunet_topo.metrics.registry import DEFAULT_METRICS, METRICS


def summarize_validation(trainer: nnUNetTrainer) -> None:
    """Score the validation folder, write summary_topo.json beside nnU-Net's summary.json, and say the means.

    A training of days must not end in an error because its scores cannot be written: what a file or a full disk can
    cause is said in the log.

    Args:
        trainer: right after its `perform_actual_validation`, on rank 0.
    """
    folder = Path(trainer.output_folder) / "validation"
    file = folder / SUMMARY_NAME
    try:
        # Scores of an earlier validation must not outlive its predictions.
        for stale in (file, file.with_suffix(".csv")):
            stale.unlink(missing_ok=True)
        evaluation = evaluate_folders(
            Path(trainer.preprocessed_dataset_folder_base) / "gt_segmentations",
            folder,
            dataset_json=trainer.dataset_json,
            metrics=DEFAULT_METRICS,
            processes=default_num_processes,
            chill=True,
            progress=False,
        )
        write_evaluation(evaluation, file)
    except (TopoError, OSError, RuntimeError, ValueError, MemoryError) as error:
        trainer.print_to_log_file(f"[topo] {SUMMARY_NAME} was not written: {error}")
        return
    _report(trainer, evaluation)


def _report(trainer: nnUNetTrainer, evaluation: Evaluation) -> None:
    for problem in evaluation.problems:
        trainer.print_to_log_file(f"[topo] not in {SUMMARY_NAME}: {problem.case}: {problem.message}")
    means = evaluation.summary["foreground_mean"]
    for name in DEFAULT_METRICS:
        value = means[METRICS[name].key]
        trainer.print_to_log_file(f"[topo] mean validation {name}: {value:.4g}")
        trainer.logger.log_summary(f"final_val/foreground_{name}", value)
