"""The diary's recipes, through `nnunet-topo plan --set`, train from start to end with all that they name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_topo.cli.__main__ import main
from nnunet_topo.recipe import builtin_recipes, load_recipe
from nnunet_topo.training.trainers import nnUNetTrainerTopo

DIARY = [name for name in builtin_recipes() if name[0] == "v" and name[1].isdigit()]
EPOCHS = 7
# Lengths and calendars are cut down; what the mechanisms do when their time has come stays as it is in the recipe.
SHORTER = {
    "": {"epochs": EPOCHS, "iterations_per_epoch": 1, "validation_iterations": 1},
    "monitor": {"patches": 2, "smoothing_epochs": 1},
    "network": {"patch_size": [16, 16, 16], "batch_size": 2, "features": 4},
    "plateau": {"patience": 2, "threshold": 100.0, "evaluation_epochs": 1},
    "rollback": {"degradation_epochs": 1, "tolerance": 0.0, "catastrophic": 1.0e-4},
    "noise": {"start": 2, "every": 2},
    "averaging": {"start": 5, "every": 1, "anneal_epochs": 1},
}
SHORTER_SCHEDULE: dict[str, dict[str, Any]] = {
    "plateau": {"patience": 1, "threshold": 10.0, "warmup_epochs": 1},
    "cosine_restarts": {"first_cycle_epochs": 2, "warmup_epochs": 1},
}


def settings(name: str) -> list[str]:
    """Overrides of what the recipe has."""
    recipe = load_recipe(name)
    mapping = recipe.to_mapping()
    sections = {**SHORTER, "lr_schedule": SHORTER_SCHEDULE[recipe.lr_schedule.name]}
    if recipe.averaging.kind == "none":
        sections.pop("averaging")
    overrides = [
        f"{section}.{key}={json.dumps(value)}" if section else f"{key}={json.dumps(value)}"
        for section, values in sections.items()
        if not section or mapping[section] is not None
        for key, value in values.items()
    ]
    return [*overrides, *(f"phases.{index}.from={index}" for index in range(1, len(recipe.phases)))]


def test_all_of_the_diary_is_here() -> None:
    assert [name.split("_")[0] for name in DIARY] == ["v1", "v2", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9"]


@pytest.mark.slow
@pytest.mark.parametrize("name", DIARY)
def test_trains_with_every_mechanism_that_it_names(name: str, nnunet: Path, preprocessed: Path, capsys) -> None:
    assert main(["plan", "-d", "901", "-r", name, "-c", "3d_fullres", "--set", *settings(name)]) == 0
    folder = preprocessed / "nnUNet_preprocessed" / "Dataset901_plain"
    plans = json.loads((folder / f"nnUNetPlans_{name}.json").read_text())
    plans["continue_training"] = False
    dataset = json.loads((folder / "dataset.json").read_text())
    trainer = nnUNetTrainerTopo(plans, "3d_fullres", 0, dataset, torch.device("cpu"))
    recipe = trainer.recipe
    original = load_recipe(name)
    trainer.run_training()
    capsys.readouterr()

    lines = trainer.journal.lines()
    epochs = [line for line in lines if line["kind"] == "epoch"]
    happened = [(line["epoch"], line["what"]) for line in lines if line["kind"] == "event"]
    assert [line["epoch"] for line in epochs] == list(range(EPOCHS))
    for line in epochs:
        assert all(value is not None for value in line["monitors"].values())
        assert set(line["train"]["terms"]) == {term for term, weight in line["weights"].items() if weight > 0}
    seen = {term for line in epochs for term in line["train"]["terms"]}
    assert seen == set(original.active_terms())
    assert trainer.optimizer.__class__.__name__.lower() == original.optimizer.name

    assert [epoch for epoch, what in happened if what == "phase"] == list(range(1, len(recipe.phases)))
    expected = {"plateau", "rollback", "early_stopping"}
    expected |= {"noise"} if original.noise else set()
    expected |= {"averaging"} if original.averaging.kind != "none" else set()
    always = {"phases", "learning_rate", "monitors", "best", "kept_weights"}
    assert set(trainer.controls) == expected | always
    assert "plateau" in [what for _, what in happened]
    assert math.isfinite(trainer.controls["early_stopping"].best)
    if original.noise:
        assert [epoch for epoch, what in happened if what == "noise"] == [2, 4, 6]
    if original.lr_schedule.name == "plateau":
        assert "lr_reduced" in [what for _, what in happened]
    final = torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=True)
    assert ("raw_weights" in final["nnunet_topo"]["average"]) == (original.averaging.kind != "none")
    if original.averaging.kind != "none":
        assert (5, "averaging") in happened
        assert (EPOCHS - 1, "averaged") in happened
        after = [line["lr"] / line["lr_multiplier"] for line in epochs][-1]
        assert after == pytest.approx(original.averaging.lr)
    rolled_back = "rollback" in [what for _, what in happened]
    values = [line["monitors"]["reference_loss"] for line in epochs]
    worse = any(value > 1.0001 * min(values[:index]) for index, value in enumerate(values) if index)
    assert rolled_back == worse
