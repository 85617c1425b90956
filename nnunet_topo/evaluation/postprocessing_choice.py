"""Whether removing all but the largest component helps: nnU-Net's candidates, judged by any metric."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import save_pickle
from nnunetv2.evaluation.evaluate_predictions import label_or_region_to_key
from nnunetv2.postprocessing.remove_connected_components import (
    apply_postprocessing_to_folder,
    remove_all_but_largest_component_from_segmentation,
)
from nnunetv2.utilities.json_export import recursive_fix_for_json_export
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_topo.data.raw import read_json, write_json
from nnunet_topo.evaluation.judge import Guard, Judge, is_better, mean_of

Score = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True)
class PostprocessingChoice:
    """What was chosen for a folder of predictions.

    Attributes:
        arguments: keyword arguments of each removal, in order; none when predictions are best as they are.
        summary: scores of the postprocessed predictions.
        decisions: a line per candidate: what it did to the metric, and whether it was taken.
    """

    arguments: list[dict[str, Any]]
    summary: dict[str, Any]
    decisions: list[str]


def choose_postprocessing(
    folder: Path,
    summary: dict[str, Any],
    judge: Judge,
    limits: Mapping[Guard, float],
    *,
    score: Score,
    processes: int,
) -> PostprocessingChoice:
    """Try nnU-Net's candidates one after the other and keep what improves the metric.

    As nnU-Net does it with Dice: first all but the largest component of the whole foreground, kept when the mean
    improves and no label gets worse; then, where there are several labels, of each label, kept when that label
    improves. Everything kept stays within the guards. Writes `postprocessed/`, postprocessing.pkl (which
    nnUNetv2_apply_postprocessing reads) and postprocessing.json.

    Args:
        folder: predictions with plans.json and dataset.json.
        summary: its scores.
        judge: what decides.
        limits: worst values that the guards let through.
        score: gives the scores of a folder of predictions.
        processes: worker processes.

    Returns:
        The choice.
    """
    output, trial = folder / "postprocessed", folder / "postprocessed" / "temp"
    if output.is_dir():
        shutil.rmtree(output)
    plans = PlansManager(str(folder / "plans.json"))
    dataset_json = read_json(folder / "dataset.json")
    labels = plans.get_label_manager(dataset_json)
    targets = labels.foreground_regions if labels.has_regions else labels.foreground_labels
    candidates = [("the foreground", list(labels.foreground_labels), [label_or_region_to_key(key) for key in targets])]
    if len(targets) > 1:
        candidates += [(label_or_region_to_key(target), target, []) for target in targets]

    source, before = folder, summary
    choice = PostprocessingChoice([], summary, [])
    for number, (what, target, must_not_fall) in enumerate(candidates):
        arguments = {"labels_or_regions": target}
        tried = trial / str(number)
        apply_postprocessing_to_folder(
            str(source),
            str(tried),
            [remove_all_but_largest_component_from_segmentation],
            [arguments],
            plans.plans,
            dataset_json,
            processes,
        )
        for name in ("plans.json", "dataset.json"):
            shutil.copy(folder / name, tried / name)
        after = score(tried)
        key = None if number == 0 else what
        old, new = (mean_of(scores, judge.metric, key) for scores in (before, after))
        worse = [
            label
            for label in must_not_fall
            if is_better(mean_of(before, judge.metric, label), mean_of(after, judge.metric, label), judge.metric)
        ]
        broken = judge.violations(after, limits)
        taken = is_better(new, old, judge.metric) and not worse and not broken
        reasons = [f"worse for {', '.join(worse)}"] * bool(worse) + broken
        choice.decisions.append(
            f"all but the largest component of {what} removed: {judge.metric.name} {old:.5f} -> {new:.5f}, "
            f"{'taken' if taken else 'not taken'}{': ' + '; '.join(reasons) if reasons and not taken else ''}"
        )
        if taken:
            source, before = tried, after
            choice.arguments.append(arguments)
    _write(folder, output, source, choice.arguments, summary, before)
    shutil.rmtree(trial)
    return PostprocessingChoice(choice.arguments, before, choice.decisions)


def _write(
    folder: Path,
    output: Path,
    source: Path,
    arguments: list[dict[str, Any]],
    before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> None:
    ending = read_json(folder / "dataset.json")["file_ending"]
    for file in source.iterdir():
        if file.name.endswith(ending) or file.name in ("plans.json", "dataset.json", "summary_topo.json"):
            shutil.copy(file, output / file.name)
    function = remove_all_but_largest_component_from_segmentation
    save_pickle(([function] * len(arguments), arguments), str(folder / "postprocessing.pkl"))
    report = {
        "input_folder": {key: before[key] for key in ("foreground_mean", "mean")},
        "postprocessed": {key: after[key] for key in ("foreground_mean", "mean")},
        "postprocessing_fns": [function.__name__] * len(arguments),
        "postprocessing_kwargs": [dict(keywords) for keywords in arguments],
    }
    recursive_fix_for_json_export(report)
    write_json(folder / "postprocessing.json", report)
