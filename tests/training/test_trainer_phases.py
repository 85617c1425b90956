"""Phases, journal and resuming, in real short runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from nnunet_topo.recipe import recipe_from_mapping
from nnunet_topo.schedule.phases import weights_at
from nnunet_topo.training.trainers import nnUNetTrainerTopo

RECIPE = {
    "name": "ramped",
    "epochs": 6,
    "iterations_per_epoch": 2,
    "validation_iterations": 1,
    "checkpoint_every": 3,
    "seed": 3,
    "lr_schedule": {"name": "poly", "warmup_epochs": 2},
    "phases": [
        {"from": 0, "weights": {"dice": 1.0}},
        {"from": 2, "weights": {"dice": 0.6, "focal": 0.4, "boundary": 0.1}, "ramp_epochs": 3},
        {"from": 5, "weights": {"dice": 0.5, "variance": 0.05}},
    ],
}


def journal(trainer) -> list[dict]:
    text = (Path(trainer.output_folder) / "topo_journal.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def epochs(trainer) -> list[dict]:
    return [line for line in journal(trainer) if line["kind"] == "epoch"]


def expected_weights(epoch: int) -> dict[str, float]:
    return weights_at(recipe_from_mapping(RECIPE, "test"), epoch)


@pytest.mark.parametrize("kind", ["ignore", "classes", "regions"])
def test_journal_weights_terms_and_loss_agree_in_every_epoch(make_trainer, kind: str, figures) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, kind, recipe=RECIPE)
    trainer.run_training()
    lines = epochs(trainer)
    assert [line["epoch"] for line in lines] == list(range(6))
    assert [line["phase"] for line in lines] == [0, 0, 1, 1, 1, 2]
    for line in lines:
        assert line["weights"] == pytest.approx(expected_weights(line["epoch"]))
        for part in ("train", "validation"):
            active = {name for name, weight in line["weights"].items() if weight > 0}
            assert set(line[part]["terms"]) == active
            weighted = {name: line["weights"][name] * line[part]["terms"][name] for name in active}
            assert line[part]["weighted"] == pytest.approx(weighted)
            assert line[part]["loss"] == pytest.approx(sum(weighted.values()), abs=1e-5)
        assert 0 <= line["validation"]["foreground_predicted"] <= 1
        assert 0 < line["validation"]["foreground_labelled"] < 0.3
    assert [line["lr"] for line in lines][:2] == [0.005, 0.01]
    events = [line for line in journal(trainer) if line["kind"] == "event"]
    calendar = [(event["epoch"], event["what"]) for event in events if event["what"] in ("start", "phase")]
    assert calendar == [(0, "start"), (2, "phase"), (5, "phase")]
    folder = Path(trainer.output_folder)
    for name in ("progress.png", "progress_topo.png", "topo_recipe.yaml", "checkpoint_final.pth"):
        assert (folder / name).stat().st_size > 0
    assert not list(folder.glob("*.tmp"))
    logged = trainer.logger.get_value("train_losses", step=None)
    assert logged == pytest.approx([line["train"]["loss"] for line in lines], abs=1e-6)


def test_resume_in_the_middle_of_a_ramp_goes_on_as_if_uninterrupted(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, "ignore", recipe=RECIPE)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    original = trainer.on_epoch_start
    trainer.on_epoch_start = lambda: stop() if trainer.current_epoch == 4 else original()
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    folder = Path(trainer.output_folder)
    latest = torch.load(folder / "checkpoint_latest.pth", weights_only=True)
    assert latest["current_epoch"] == 3
    assert [line["epoch"] for line in epochs(trainer)] == [0, 1, 2, 3]

    resumed = make_trainer(nnUNetTrainerTopo, "ignore", recipe=RECIPE, continue_training=True)
    resumed.load_checkpoint(str(folder / "checkpoint_latest.pth"))
    resumed.run_training()
    lines = epochs(resumed)
    assert [line["epoch"] for line in lines] == list(range(6))
    for line in lines:
        assert line["weights"] == pytest.approx(expected_weights(line["epoch"]))
    assert lines[3]["weights"]["focal"] == pytest.approx(0.4 / 3)
    assert any(line["kind"] == "event" and line["what"] == "resume" for line in journal(resumed))


def test_validating_the_best_checkpoint_leaves_the_journal_alone(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, recipe={**RECIPE, "epochs": 6, "checkpoint_every": 50})
    trainer.run_training()
    before = journal(trainer)
    again = make_trainer(nnUNetTrainerTopo, recipe={**RECIPE, "epochs": 6, "checkpoint_every": 50})
    again.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_best.pth"))
    assert journal(again) == before


def test_a_fresh_run_replaces_the_journal_of_an_earlier_one(make_trainer, monkeypatch) -> None:
    monkeypatch.setenv("NNUNET_TOPO_OVERWRITE", "1")
    short = {**RECIPE, "epochs": 1, "phases": RECIPE["phases"][:1], "lr_schedule": {"name": "constant"}}
    for _ in range(2):
        trainer = make_trainer(nnUNetTrainerTopo, recipe=short)
        trainer.run_training()
    assert len(epochs(trainer)) == 1


def test_changing_weights_does_not_recompile_the_network(make_trainer) -> None:
    torch._dynamo.reset()
    trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
    trainer.initialize()
    compiled_frames = []

    def backend(graph: torch.fx.GraphModule, _: object):
        compiled_frames.append(graph)
        return graph.forward

    trainer.network = torch.compile(trainer.network, backend=backend)
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    counts = []
    for epoch in range(6):
        trainer.current_epoch = epoch
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        trainer.train_step(batch)
        counts.append(len(compiled_frames))
    assert counts[0] > 0
    assert set(counts) == {counts[0]}


def test_same_seed_same_weights(make_trainer, nnunet: Path) -> None:
    states = []
    for _ in range(2):
        shutil.rmtree(nnunet, ignore_errors=True)
        trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
        trainer.initialize()
        states.append(trainer.network.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_figure_that_cannot_be_drawn_does_not_end_the_training(make_trainer, monkeypatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nnunet_topo.training.trainers.draw_progress", full_disk)
    recipe = {**RECIPE, "epochs": 2, "phases": RECIPE["phases"][:1], "lr_schedule": {"name": "constant"}}
    trainer = make_trainer(nnUNetTrainerTopo, recipe=recipe)
    trainer.run_training()
    assert len(epochs(trainer)) == 2
    assert "progress_topo.png was not drawn: [Errno 28]" in Path(trainer.log_file).read_text()
