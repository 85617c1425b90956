"""What lets a run go on as if nothing had happened; whole interrupted trainings are in tests/faults."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.utilities.collate_outputs import collate_outputs

from nnunet_topo.training.checkpoint import read_checkpoint
from nnunet_topo.training.resume import (
    blur_paths,
    pack_outputs,
    random_state,
    restore_blur_paths,
    restore_random_state,
    unpack_outputs,
)
from nnunet_topo.training.trainers import nnUNetTrainerTopo

CPU = torch.device("cpu")
RECIPE = {
    "name": "resumed",
    "epochs": 2,
    "iterations_per_epoch": 2,
    "validation_iterations": 1,
    "seed": 3,
    "phases": [{"from": 0, "weights": {"dice": 1.0, "ce": 1.0}}],
}


def draw() -> list[float]:
    return [random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(()))]


def test_generators_go_on_where_they_were(tmp_path: Path) -> None:
    draw()  # leaves the second half of a pair of normal numbers behind in Python and NumPy
    torch.save({"network_weights": {}, "nnunet_topo": random_state(CPU)}, tmp_path / "state.pth")
    expected = [draw() for _ in range(3)]
    restore_random_state(read_checkpoint(tmp_path / "state.pth")["nnunet_topo"], CPU)
    assert [draw() for _ in range(3)] == expected


def test_outputs_come_back_as_nnunet_collates_them(tmp_path: Path) -> None:
    outputs = [
        {
            "loss": np.array(0.5 * step, np.float32),
            "terms": np.arange(3, dtype=np.float32) + step,
            "tp_hard": np.array([step, 2.0]),
            "count": step,
            "names": [f"case{step}"],
        }
        for step in range(4)
    ]
    torch.save({"network_weights": {}, "nnunet_topo": pack_outputs(outputs)}, tmp_path / "outputs.pth")
    back = unpack_outputs(read_checkpoint(tmp_path / "outputs.pth")["nnunet_topo"])
    for ours, theirs in zip(back, outputs, strict=True):
        for key, value in theirs.items():
            assert type(ours[key]) is type(value)
            assert getattr(ours[key], "dtype", None) == getattr(value, "dtype", None)
    again, once = collate_outputs([*back[:2], *outputs[2:]]), collate_outputs(outputs)
    assert all(np.array_equal(again[key], once[key]) for key in once)
    assert unpack_outputs(pack_outputs([])) == []


def test_blur_paths_are_chosen_before_the_first_step_and_kept(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
    trainer.on_train_start()
    paths = blur_paths(trainer.dataloader_train)
    assert [{size: sorted(kernels) for size, kernels in one.items()} for one in paths] == [{16: [3, 5]}]
    turned = [{16: {3: not paths[0][16][3], 5: paths[0][16][5]}}]
    restore_blur_paths(trainer.dataloader_train, turned)
    file = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    resumed = make_trainer(nnUNetTrainerTopo, recipe=RECIPE, continue_training=True)
    resumed.load_checkpoint(str(file))
    resumed.on_train_start()
    assert blur_paths(resumed.dataloader_train) == turned


def test_the_wait_between_two_processes_belongs_to_no_epoch(make_trainer, monkeypatch) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
    original = trainer.train_step

    def interrupt(batch):
        outputs = original(batch)
        trainer.progress.training.append(outputs)
        trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
        raise KeyboardInterrupt

    trainer.train_step = interrupt
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    later = make_trainer(nnUNetTrainerTopo, recipe=RECIPE, continue_training=True)
    monkeypatch.setattr("nnunet_topo.training.resume.time", lambda: 1e9 + __import__("time").time())
    later.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    monkeypatch.setattr("nnunet_topo.training.trainers.time", lambda: 1e9 + __import__("time").time())
    later.run_training()
    lines = later.journal.lines()
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [0, 1]
    assert 0 < next(line["duration_s"] for line in lines if line["kind"] == "epoch") < 100
    assert [line["what"] for line in lines if line["kind"] == "event"] == ["start", "resume"]


def test_stock_goes_on_from_a_checkpoint_of_the_middle_of_an_epoch(make_trainer) -> None:
    """It repeats that epoch, and its log stays one value an epoch."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
    file = str(Path(trainer.output_folder) / "checkpoint_latest.pth")
    original = trainer.validation_step

    def interrupt(batch):
        trainer.progress.validation.append(original(batch))
        trainer.save_checkpoint(file)
        raise KeyboardInterrupt

    trainer.validation_step = interrupt
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    stock = make_trainer(nnUNetTrainer)
    stock.num_epochs, stock.num_iterations_per_epoch, stock.num_val_iterations_per_epoch = 1, 1, 1
    stock.load_checkpoint(file)
    assert stock.current_epoch == 0
    stock.run_training()
    assert {len(values) for values in stock.logger.local_logger.my_fantastic_logging.values()} == {1}


def test_workers_and_no_workers_keep_the_same_section(make_trainer, monkeypatch) -> None:
    """With worker processes there is no blur to keep; everything else goes on."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
    trainer.run_training()
    section = torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=True)["nnunet_topo"]
    assert section["ranks"][0]["blur_paths"] == []
    assert set(section["ranks"][0]["random"]) == {"python", "numpy", "torch"}
    assert section["position"] is None


def test_latest_knows_the_best_of_its_own_epoch(make_trainer, monkeypatch) -> None:
    """Else a run that goes on from it replaces the best checkpoint by a worse one; stock nnU-Net's does."""
    outcomes = iter([0.2, 0.9, 0.1])
    monkeypatch.setattr("numpy.nanmean", lambda _: next(outcomes))
    trainer = make_trainer(nnUNetTrainerTopo, recipe={**RECIPE, "epochs": 3, "checkpoint_every": 1})
    original, saved = trainer.save_checkpoint, []

    def noted(file):
        original(file)
        saved.append((trainer.current_epoch, Path(file).name.removesuffix(".pth").removeprefix("checkpoint_")))

    trainer.save_checkpoint = noted
    trainer.run_training()
    names = [name for name in saved if name[1] != "best_topo"]
    assert names == [(0, "best"), (0, "latest"), (1, "best"), (1, "latest"), (2, "final")]
    previous = read_checkpoint(Path(trainer.output_folder) / "checkpoint_previous.pth")
    best = read_checkpoint(Path(trainer.output_folder) / "checkpoint_best.pth")
    assert previous["current_epoch"] == best["current_epoch"] == 2
    assert previous["_best_ema"] == best["_best_ema"] == pytest.approx(0.27)


def test_nan_is_no_best_to_go_on_with(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
    trainer.on_train_start()
    for best, expected in ((float("nan"), None), (None, None), (0.0, 0.0), (0.4, 0.4)):
        trainer._best_ema = best
        trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_best.pth"))
        trainer.load_checkpoint(read_checkpoint(Path(trainer.output_folder) / "checkpoint_best.pth"))
        assert trainer._best_ema == expected
