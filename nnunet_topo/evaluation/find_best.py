"""The best trained configuration or ensemble by any metric: nnU-Net's procedure, with another yardstick.

nnU-Net compares by Dice alone. Everything else is as its nnUNetv2_find_best_configuration does it: the same folders and
files, the same ensembles, and the commands that nnU-Net users know.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_topo.data.raw import write_json
from nnunet_topo.evaluation.candidates import (
    Model,
    gather_candidates,
    require_predictions,
    write_stock_summary,
)
from nnunet_topo.evaluation.inference_commands import inference_instructions
from nnunet_topo.evaluation.judge import Judge, mean_of
from nnunet_topo.evaluation.postprocessing_choice import choose_postprocessing
from nnunet_topo.evaluation.score_predictions import score_predictions
from nnunet_topo.evaluation.summaries import case_name
from nnunet_topo.metrics.registry import METRICS
from nnunet_topo.training.journal import json_legal


@dataclass(frozen=True)
class BestConfiguration:
    """What `find_best` found.

    Attributes:
        best: name of the model or ensemble.
        information: content of inference_information.json. Besides nnU-Net's keys: `metric`, `guards`, `means` (of each
            metric by candidate), `excluded` (broken guards by candidate) and `postprocessing` (a line per attempt).
        instructions: content of inference_instructions.txt.
        warnings: what a reader must know before believing the choice.
    """

    best: str
    information: dict[str, Any]
    instructions: str
    warnings: list[str] = field(default_factory=list)


def find_best(
    dataset: str,
    models: Sequence[Model],
    judge: Judge,
    *,
    folds: Sequence[int] = (0, 1, 2, 3, 4),
    ensembling: bool = True,
    processes: int = 2,
    overwrite: bool = True,
) -> BestConfiguration:
    """Choose among trained models and the ensembles of two, then their postprocessing.

    Args:
        dataset: folder name.
        models: trained ones; `trained_models` lists them.
        judge: the metric that ranks, and the guards. A guard's limit is the best candidate's mean of that metric, any
            candidate's, plus the allowed change; candidates and postprocessing beyond it are left out.
        folds: folds of the cross-validation, all validated.
        ensembling: try ensembles of two; needs predictions made with --npz.
        processes: worker processes.
        overwrite: score and ensemble again what is there already.

    Returns:
        The choice. Written besides: crossval_results_folds_*/ and ensembles/ with summary.json, summary_topo.json and
        the winner's postprocessing.pkl, and in the dataset's results folder inference_information.json and
        inference_instructions.txt.

    Raises:
        DataError: predictions are missing or unreadable, or no candidate keeps to the guards.
    """
    names = tuple(dict.fromkeys([*judge.names, "dice"]))
    ensembling = ensembling and len(models) > 1
    ground_truth = _ground_truth(dataset)
    require_predictions(dataset, models, folds, ground_truth, probabilities=ensembling)
    candidates = gather_candidates(
        dataset, models, folds, ground_truth, ensembling=ensembling, processes=processes, overwrite=overwrite
    )
    summaries = {
        candidate.name: score_predictions(
            candidate.folder, ground_truth, names, processes=processes, reuse=not overwrite
        )
        for candidate in candidates
    }
    limits = judge.limits(list(summaries.values()))
    best, excluded = judge.choose(summaries, limits)
    winner = next(candidate for candidate in candidates if candidate.name == best)
    postprocessing = choose_postprocessing(
        winner.folder,
        summaries[best],
        judge,
        limits,
        score=lambda folder: score_predictions(folder, ground_truth, names, processes=processes),
        processes=processes,
    )
    write_stock_summary(winner.folder / "postprocessed", ground_truth, processes)
    information = {
        # nnU-Net's own keys; all_results holds means of the metric.
        "folds": list(folds),
        "dataset_name_or_id": dataset,
        "considered_models": [
            {"plans": model.plans, "configuration": model.configuration, "trainer": model.trainer} for model in models
        ],
        "ensembling_allowed": ensembling,
        "all_results": {name: mean_of(summary, judge.metric) for name, summary in summaries.items()},
        "best_model_or_ensemble": {
            "result_on_crossval_pre_pp": mean_of(summaries[best], judge.metric),
            "result_on_crossval_post_pp": mean_of(postprocessing.summary, judge.metric),
            "postprocessing_file": str(winner.folder / "postprocessing.pkl"),
            "some_plans_file": str(winner.folder / "plans.json"),
            "selected_model_or_models": [
                {"configuration": model.configuration, "trainer": model.trainer, "plans_identifier": model.plans}
                for model in winner.models
            ],
        },
        # Ours: how it was chosen.
        "metric": judge.metric.name,
        "guards": [guard.text for guard in judge.guards],
        "excluded": excluded,
        "means": {
            name: {metric: mean_of(summary, METRICS[metric]) for metric in names} for name, summary in summaries.items()
        },
        "postprocessing": postprocessing.decisions,
    }
    instructions = inference_instructions(information, winner.models)
    results = Path(os.environ["nnUNet_results"]) / dataset
    write_json(results / "inference_information.json", json_legal(information))
    (results / "inference_instructions.txt").write_text(instructions, encoding="utf-8")
    return BestConfiguration(best, information, instructions, _warnings(summaries, judge))


def _ground_truth(dataset: str) -> Path:
    """Where the references are: the raw labels first, as their side-cars hold a tif's spacing."""
    raw = os.environ.get("nnUNet_raw")
    labels = Path(raw) / dataset / "labelsTr" if raw else None
    if labels is not None and labels.is_dir():
        return labels
    return Path(os.environ["nnUNet_preprocessed"]) / dataset / "gt_segmentations"


def _warnings(summaries: Mapping[str, Mapping[str, Any]], judge: Judge) -> list[str]:
    """Candidates whose mean leaves out cases that count for another: the means are then over different cases."""
    undefined = {
        name: {
            case_name(entry["prediction_file"])
            for entry in summary["metric_per_case"]
            for values in entry["metrics"].values()
            if not _is_finite(values.get(judge.metric.key))
        }
        for name, summary in summaries.items()
    }
    everywhere = set.intersection(*undefined.values())
    return [
        f"{name}: {judge.metric.name} has no value in {len(cases - everywhere)} cases in which another candidate has "
        f"one ({', '.join(sorted(cases - everywhere)[:5])}); the means are over different cases"
        for name, cases in undefined.items()
        if cases - everywhere
    ]


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
