"""Settings and data that have to be refused before the first step, through nnU-Net's own command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from stock_datasets import put_foreign_label, read_json
from stock_harness import Bench, StepFailed
from stock_scenarios import plan, preprocess, synthesise
from stock_training import ITERATIONS, OURS, VALIDATION_ITERATIONS, Model, epoch_lines, train

FOREIGN_LABEL = 7
_LENGTH = f"epochs: 3\niterations_per_epoch: {ITERATIONS}\nvalidation_iterations: {VALIDATION_ITERATIONS}\n"


@dataclass(frozen=True)
class BadRecipe:
    """A recipe file that has to be refused, and what its error has to hold besides the file's name.

    Attributes:
        what: name of the case.
        text: contents after the name.
        says: parts of the error: the key, the value, the mend.
    """

    what: str
    text: str
    says: tuple[str, ...]


BAD_RECIPES = (
    BadRecipe(
        "unknown key", f"epoch: 3\n{_LENGTH}phases: [{{from: 0, weights: {{dice: 1.0}}}}]\n", ("epoch", "'epochs'")
    ),
    BadRecipe(
        "unordered phases",
        f"{_LENGTH}phases:\n  - {{from: 0, weights: {{dice: 1.0}}}}\n  - {{from: 2, weights: {{ce: 1.0}}}}\n"
        "  - {from: 1, weights: {focal: 1.0}}\n",
        ("phases.2.from", "got 1", "Order the phases"),
    ),
    BadRecipe(
        "all weights zero",
        f"{_LENGTH}phases: [{{from: 0, weights: {{dice: 0.0, ce: 0.0}}}}]\n",
        ("phases.0.weights", "0.0", "Give a loss term a weight"),
    ),
    BadRecipe(
        "a negative weight",
        f"{_LENGTH}phases: [{{from: 0, weights: {{dice: 1.0, ce: -0.5}}}}]\n",
        ("phases.0.weights.ce", "-0.5"),
    ),
)


def prepare(bench: Bench, number: int = 950) -> Model:
    """A small preprocessed dataset for the refusals, whose plans hold no recipe."""
    dataset = synthesise(bench, number, "vessels")
    preprocess(bench, dataset, "3d_fullres")
    plans = plan(bench, dataset, "progressive", (16, 16, 16), "3d_fullres", ("phases.1.from=1", "phases.2.from=2"))
    return Model(dataset, "3d_fullres", plans, OURS)


def refuse_unknown_recipe(bench: Bench, model: Model) -> None:
    """A misspelt name in NNUNET_TOPO_RECIPE."""
    _refuse(bench, model, "unknown recipe", "progresive", "progresive", "'progressive'")


def refuse_recipe_file(bench: Bench, model: Model, bad: BadRecipe) -> None:
    """A recipe file with a fault in it."""
    file = bench.work / f"bad_{bad.what.replace(' ', '_')}.yaml"
    file.write_text(f"name: bad\n{bad.text}", encoding="utf-8")
    _refuse(bench, model, bad.what, str(file), file.name, *bad.says)


def refuse_other_recipe(bench: Bench, model: Model) -> None:
    """Another recipe than the checkpoint's under --c; `model` has a trained fold 0."""
    before = epoch_lines(model.folder(bench.results) / "fold_0")
    file = bench.work / "other.yaml"
    file.write_text(
        f"name: other\n{_LENGTH}optimizer: {{lr: 0.003}}\nphases: [{{from: 0, weights: {{dice: 1.0}}}}]\n",
        encoding="utf-8",
    )
    says = ("--c", "other", "checkpoint_final.pth", "optimizer.lr: 0.01 -> 0.003", "NNUNET_TOPO_RECIPE")
    _refuse(bench, model, "another recipe under --c", str(file), *says, flags=("--c",))
    with bench.check(model.dataset, "journal untouched by the refusal"):
        after = epoch_lines(model.folder(bench.results) / "fold_0")
        assert before, "fold 0 was not trained"
        assert after == before, "the refused --c changed the journal"


def refuse_foreign_label(bench: Bench, model: Model) -> None:
    """A label in the preprocessed data that dataset.json does not know."""
    elsewhere = bench.work / "foreign_label"
    shutil.rmtree(elsewhere, ignore_errors=True)
    target = elsewhere / model.dataset
    shutil.copytree(bench.preprocessed / model.dataset, target)
    plans = read_json(target / f"{model.plans}.json")
    identifier = plans["configurations"][model.configuration]["data_identifier"]
    file = put_foreign_label(target, identifier, FOREIGN_LABEL)
    roots = {"nnUNet_preprocessed": str(elsewhere), "nnUNet_results": str(elsewhere / "results")}
    step = "refuse: a label outside dataset.json, by the trainer"
    train(bench, model, 1, env=roots, refused=(file.name, str(FOREIGN_LABEL)), step=step)
    step = "report: a label outside dataset.json, by check"
    command = ("nnunet-topo", "check", "-d", model.number)
    bench.run(model.dataset, step, *command, env=roots, reports=(file.name, str(FOREIGN_LABEL)))


def _refuse(bench: Bench, model: Model, what: str, recipe: str, *says: str, flags: tuple[object, ...] = ()) -> None:
    environment = {"NNUNET_TOPO_RECIPE": recipe}
    train(bench, model, 0, *flags, env=environment, refused=says, step=f"refuse: {what}")


def bad_input(bench: Bench) -> None:
    """Every refusal in turn; one that fails does not keep the others from running."""
    model = prepare(bench)
    train(bench, model, 0)
    refusals: list[Callable[[], None]] = [partial(refuse_unknown_recipe, bench, model)]
    refusals += [partial(refuse_recipe_file, bench, model, bad) for bad in BAD_RECIPES]
    refusals += [partial(refuse_other_recipe, bench, model), partial(refuse_foreign_label, bench, model)]
    failures = []
    for refuse in refusals:
        try:
            refuse()
        except StepFailed as failure:
            failures.append(str(failure))
    if failures:
        raise StepFailed("\n".join(failures))
