"""What a fold's folder already holds, and what may be done with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint

from nnunet_topo.errors import CheckpointError
from nnunet_topo.training.existing_run import newest_valid
from nnunet_topo.training.trainers import nnUNetTrainerTopo

RECIPE = {
    "name": "short",
    "epochs": 3,
    "iterations_per_epoch": 1,
    "validation_iterations": 1,
    "checkpoint_every": 1,
    "seed": 1,
    "phases": [{"from": 0, "weights": {"dice": 1.0}}],
}


@pytest.fixture
def finished(make_trainer) -> Path:
    trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
    trainer.run_training()
    return Path(trainer.output_folder)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def contents(folder: Path) -> dict[Path, bytes]:
    """All files, but nnU-Net's log, which every trainer begins anew."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.suffix != ".txt"}


def with_epoch(file: Path, epoch: int) -> None:
    torch.save({**torch.load(file, weights_only=True), "current_epoch": epoch}, file)


def test_a_finished_run_leaves_final_best_and_previous(finished: Path) -> None:
    names = {file.name for file in finished.glob("checkpoint*")}
    assert names >= {"checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_previous.pth"}
    assert "checkpoint_latest.pth" not in names
    assert torch.load(finished / "checkpoint_previous.pth", weights_only=True)["current_epoch"] == 2


def test_the_previous_one_is_an_interval_older(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
    trainer.initialize()
    folder = Path(trainer.output_folder)
    for epoch in range(3):
        trainer.current_epoch = epoch
        trainer.save_checkpoint(str(folder / "checkpoint_latest.pth"))
        trainer.save_checkpoint(str(folder / "checkpoint_best.pth"))
    epochs = [torch.load(folder / f"checkpoint_{name}.pth")["current_epoch"] for name in ("latest", "previous", "best")]
    assert epochs == [3, 2, 3]
    assert len(list(folder.glob("checkpoint*"))) == 3


class TestNewest:
    def test_final_first(self, finished: Path) -> None:
        choice = newest_valid(finished)
        assert choice.file == finished / "checkpoint_final.pth"
        assert choice.rejected == {}

    @pytest.mark.parametrize(("latest", "best", "chosen"), [(5, 4, "latest"), (4, 5, "best"), (5, 5, "latest")])
    def test_the_one_that_got_furthest(self, finished: Path, latest: int, best: int, chosen: str) -> None:
        (finished / "checkpoint_final.pth").rename(finished / "checkpoint_latest.pth")
        with_epoch(finished / "checkpoint_latest.pth", latest)
        with_epoch(finished / "checkpoint_best.pth", best)
        choice = newest_valid(finished)
        assert choice.file == finished / f"checkpoint_{chosen}.pth"
        assert choice.checkpoint["current_epoch"] == 5
        assert choice.why == "the newest whole one, epoch 5 is next"

    def test_all_fall_back_in_turn(self, finished: Path) -> None:
        shutil.copy(finished / "checkpoint_previous.pth", finished / "checkpoint_latest.pth")
        with_epoch(finished / "checkpoint_best.pth", 1)
        with_epoch(finished / "checkpoint_previous.pth", 0)
        seen = []
        while (choice := newest_valid(finished)).file is not None:
            seen.append(choice.file.name.split("_")[1])
            assert set(choice.rejected) == {f"checkpoint_{name}" for name in seen[:-1]}
            truncate(choice.file)
        assert seen == ["final.pth", "latest.pth", "best.pth", "previous.pth"]
        assert len(choice.rejected) == 4

    def test_weights_alone_are_no_training(self, finished: Path) -> None:
        for name in ("final", "best"):
            file = finished / f"checkpoint_{name}.pth"
            torch.save({"network_weights": torch.load(file, weights_only=True)["network_weights"]}, file)
        choice = newest_valid(finished)
        assert choice.file == finished / "checkpoint_previous.pth"
        assert "optimizer_state" in choice.rejected["checkpoint_final.pth"]


class TestContinuing:
    def test_a_finished_run_trains_no_more(self, make_trainer, finished: Path) -> None:
        before = torch.load(finished / "checkpoint_final.pth", weights_only=True)["network_weights"]
        trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE, continue_training=True)
        maybe_load_checkpoint(trainer, True, False)
        trainer.run_training()
        after = torch.load(finished / "checkpoint_final.pth", weights_only=True)["network_weights"]
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert "checkpoint_final.pth chosen, the end of the run" in Path(trainer.log_file).read_text()

    def test_stock_finds_nothing_but_the_previous_one_is_there(self, make_trainer, finished: Path) -> None:
        for name in ("final", "best"):
            (finished / f"checkpoint_{name}.pth").unlink()
        trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE, continue_training=True)
        maybe_load_checkpoint(trainer, True, False)
        assert trainer.loaded_checkpoint is None
        trainer.run_training()
        assert trainer.loaded_checkpoint == str(finished / "checkpoint_previous.pth")
        lines = [json.loads(line) for line in (finished / "topo_journal.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [0, 1, 2]
        assert [line["to"] for line in lines if line.get("what") == "resume"] == ["checkpoint_previous.pth"]

    def test_val_best_after_continuing_loads_exactly_the_best_one(self, make_trainer, finished: Path) -> None:
        with_epoch(finished / "checkpoint_best.pth", 1)
        trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE, continue_training=True)
        maybe_load_checkpoint(trainer, True, False)
        trainer.run_training()
        trainer.load_checkpoint(str(finished / "checkpoint_best.pth"))
        assert trainer.current_epoch == 1
        truncate(finished / "checkpoint_best.pth")
        with pytest.raises(CheckpointError, match=r"checkpoint_best\.pth.*damaged"):
            trainer.load_checkpoint(str(finished / "checkpoint_best.pth"))

    def test_a_damaged_latest_does_not_push_the_previous_one_out(self, make_trainer, finished: Path) -> None:
        previous = (finished / "checkpoint_previous.pth").read_bytes()
        for name in ("final", "best"):
            (finished / f"checkpoint_{name}.pth").unlink()
        (finished / "checkpoint_latest.pth").write_bytes(previous[:1000])
        trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE, continue_training=True)
        maybe_load_checkpoint(trainer, True, False)
        trainer.on_train_start()
        trainer.save_checkpoint(str(finished / "checkpoint_latest.pth"))
        assert (finished / "checkpoint_previous.pth").read_bytes() == previous
        whole = (finished / "checkpoint_latest.pth").read_bytes()
        trainer.save_checkpoint(str(finished / "checkpoint_latest.pth"))
        assert (finished / "checkpoint_previous.pth").read_bytes() == whole


class TestValidation:
    def test_val_loads_the_final_one_or_refuses(self, make_trainer, finished: Path) -> None:
        trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
        maybe_load_checkpoint(trainer, False, True)
        assert trainer.loaded_checkpoint == str(finished / "checkpoint_final.pth")
        truncate(finished / "checkpoint_final.pth")
        with pytest.raises(CheckpointError, match="damaged"):
            maybe_load_checkpoint(make_trainer(nnUNetTrainerTopo, recipe=RECIPE), False, True)


class TestOverwriting:
    def test_refused_before_anything_changes(self, make_trainer, finished: Path, monkeypatch) -> None:
        told = []

        class Logger:
            def __init__(self, output_folder: str, resume: bool) -> None:
                told.append(resume)

            def update_config(self, config: dict) -> None:
                pass

        monkeypatch.setattr("nnunetv2.training.logging.nnunet_logger.WandbLogger", Logger)
        monkeypatch.setenv("nnUNet_wandb_enabled", "1")
        before = contents(finished)
        trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
        with pytest.raises(CheckpointError, match=r"got a finished run.*NNUNET_TOPO_OVERWRITE=1"):
            trainer.run_training()
        assert contents(finished) == before
        # W&B's logger deletes its folder unless it is told to resume.
        assert told == [True]

    def test_pretrained_weights_start_a_run_too(self, make_trainer, finished: Path) -> None:
        trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
        maybe_load_checkpoint(trainer, False, False, str(finished / "checkpoint_final.pth"))
        with pytest.raises(CheckpointError, match="got a finished run"):
            trainer.run_training()

    def test_pretrained_weights_into_an_empty_folder(self, make_trainer, finished: Path, tmp_path: Path) -> None:
        weights = shutil.copy(finished / "checkpoint_final.pth", tmp_path / "weights.pth")
        shutil.rmtree(finished)
        trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
        maybe_load_checkpoint(trainer, False, False, str(weights))
        trainer.on_train_start()

    def test_a_started_run_counts(self, make_trainer, finished: Path) -> None:
        (finished / "checkpoint_final.pth").unlink()
        with pytest.raises(CheckpointError, match="got a started run"):
            make_trainer(nnUNetTrainerTopo, recipe=RECIPE).run_training()

    def test_logs_alone_are_no_run(self, make_trainer, finished: Path) -> None:
        """Nor is what the first epoch may leave before its end, and `--c` cannot go on from."""
        (finished / "checkpoint_final.pth").replace(finished / "checkpoint_best_topo.pth")
        for name in ("best", "previous"):
            (finished / f"checkpoint_{name}.pth").unlink()
        make_trainer(nnUNetTrainerTopo, recipe=RECIPE).on_train_start()
        assert not list(finished.glob("checkpoint*"))

    def test_allowed_it_leaves_nothing_of_the_old_run_for_a_later_c(
        self, make_trainer, finished: Path, monkeypatch
    ) -> None:
        monkeypatch.setenv("NNUNET_TOPO_OVERWRITE", "1")
        trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
        trainer.on_train_start()
        assert not list(finished.glob("checkpoint*"))

    def test_a_refusal_for_another_reason_deletes_nothing(self, make_trainer, finished: Path, monkeypatch) -> None:
        make_trainer(nnUNetTrainerTopo, fold=1, recipe=RECIPE).run_training()
        monkeypatch.setenv("NNUNET_TOPO_OVERWRITE", "1")
        with pytest.raises(CheckpointError, match="gradient_clip"):
            make_trainer(nnUNetTrainerTopo, recipe={**RECIPE, "gradient_clip": 1.0}).run_training()
        assert (finished / "checkpoint_final.pth").is_file()

    def test_only_1_allows_it(self, make_trainer, finished: Path, monkeypatch) -> None:
        monkeypatch.setenv("NNUNET_TOPO_OVERWRITE", "0")
        with pytest.raises(CheckpointError, match="finished"):
            make_trainer(nnUNetTrainerTopo, recipe=RECIPE).run_training()


class TestNothingToContinue:
    def test_refused(self, make_trainer) -> None:
        trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE, continue_training=True)
        maybe_load_checkpoint(trainer, True, False)
        with pytest.raises(CheckpointError, match=r"--c: .*got none.*NNUNET_TOPO_ALLOW_FRESH=1"):
            trainer.run_training()

    def test_allowed(self, make_trainer, monkeypatch) -> None:
        monkeypatch.setenv("NNUNET_TOPO_ALLOW_FRESH", "1")
        trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE, continue_training=True)
        maybe_load_checkpoint(trainer, True, False)
        trainer.run_training()
        assert (Path(trainer.output_folder) / "checkpoint_final.pth").is_file()
        trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_best.pth"))  # --val_best


def test_disabled_checkpointing_writes_none(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
    trainer.disable_checkpointing = True
    trainer.run_training()
    assert not list(Path(trainer.output_folder).glob("checkpoint*"))
    assert "checkpointing is disabled" in Path(trainer.log_file).read_text()


def test_leftovers_of_a_killed_process_go(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
    leftover = Path(trainer.output_folder) / "checkpoint_best.pth.tmp"
    leftover.write_bytes(b"half a checkpoint")
    trainer.on_train_start()
    assert not leftover.exists()
