"""The part of a report about what was trained on what, and how."""

from __future__ import annotations

import html
from collections.abc import Iterable

from nnunet_topo.evaluation.report_html import cell, facts, table
from nnunet_topo.evaluation.report_run import Run
from nnunet_topo.recipe import load_recipe, recipe_differences

BY = " \N{MULTIPLICATION SIGN} "


def run_section(run: Run) -> str:
    """Dataset, network, folds, and how the recipe differs from nnU-Net's defaults."""
    configuration = (run.plans.get("configurations") or {}).get(run.configuration) or {}
    architecture = configuration.get("architecture") or {}
    arguments = architecture.get("arch_kwargs") or {}
    labels = run.dataset_json.get("labels") or {}
    listed = facts(
        (
            ("dataset", run.dataset),
            ("description", str(run.dataset_json.get("description") or "")),
            ("channels", ", ".join(map(str, (run.dataset_json.get("channel_names") or {}).values()))),
            ("labels", ", ".join(f"{name} ({value})" for name, value in labels.items())),
            ("training cases", str(run.dataset_json.get("numTraining") or "")),
            ("trainer", run.trainer),
            ("plans, configuration", f"{run.plans_name}, {run.configuration}"),
            ("patch size, batch size", _patch(configuration)),
            ("spacing in mm", _by(BY, configuration.get("spacing") or ())),
            ("network", str(architecture.get("network_class_name") or "").split(".")[-1]),
            ("features per stage", _by(", ", arguments.get("features_per_stage") or ())),
            ("device", _of_folds(run, "gpu_name") or _of_folds(run, "device")),
            ("versions", _versions(run)),
        )
    )
    return listed + _folds_table(run) + _recipe(run)


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds, for people."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s"


def _folds_table(run: Run) -> str:
    rows = []
    for fold in run.folds:
        last = (fold.epochs[-1].get("validation") or {}) if fold.epochs else {}
        dice = last.get("mean_pseudo_dice")
        rows.append(
            [
                cell(fold.name),
                cell(f"{len(fold.epochs)} of {fold.planned}", len(fold.epochs)),
                cell(duration(fold.duration_s), fold.duration_s),
                cell(float("nan") if dice is None else float(dice)),
                cell(len(fold.interventions) if fold.has_journal else "not recorded"),
            ]
        )
    return table(("fold", "epochs", "time in epochs", "last pseudo Dice", "interventions"), rows)


def _recipe(run: Run) -> str:
    recipe = next((fold.recipe for fold in run.folds if fold.recipe), None)
    if recipe is None:
        return "<h4>Recipe</h4><p>None: no recipe lies beside the checkpoints, as with nnU-Net's own trainers.</p>"
    phases = "".join(f"<li>from epoch {start}: {html.escape(text)}</li>" for start, text in _phases(run))
    found = recipe_differences(load_recipe("nnunet"), recipe)
    differing = [line for line in found if not line.startswith(("name:", "phases.", "losses."))]
    rows = []
    for line in differing:
        key, _, values = line.partition(": ")
        before, _, after = values.partition(" -> ")
        rows.append([cell(key), cell(before), cell(after)])
    text = (
        table(("setting", "nnU-Net", "this run"), rows)
        if rows
        else "<p>Every setting but the loss is nnU-Net's own.</p>"
    )
    losses = "; ".join(
        f"{term}: {', '.join(f'{key} {value}' for key, value in parameters.items())}"
        for term, parameters in recipe.to_mapping()["losses"].items()
        if parameters
    )
    return (
        f"<h4>Recipe “{html.escape(recipe.name)}”, and where it differs from nnU-Net</h4>"
        f"<p>Loss, by phase (nnU-Net: Dice and cross-entropy throughout):</p><ul>{phases}</ul>"
        + (f"<p>Parameters of terms: {html.escape(losses)}.</p>" if losses else "")
        + text
    )


def _phases(run: Run) -> list[tuple[int, str]]:
    return next(fold.phases for fold in run.folds if fold.recipe)


def _patch(configuration: dict[str, object]) -> str:
    size = configuration.get("patch_size")
    return f"{_by(BY, size)}, {configuration.get('batch_size')}" if isinstance(size, list) else ""


def _versions(run: Run) -> str:
    names = (("nnunet-topo", "nnunet_topo"), ("torch", "torch_version"))
    return ", ".join(f"{name} {_of_folds(run, key)}" for name, key in names if _of_folds(run, key))


def _of_folds(run: Run, fact: str) -> str:
    return " / ".join(dict.fromkeys(fold.facts[fact] for fold in run.folds if fact in fold.facts))


def _by(separator: str, values: Iterable[object]) -> str:
    return separator.join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
