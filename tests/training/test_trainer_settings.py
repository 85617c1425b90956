"""Settings of a recipe act, and bad ones are refused before the first step."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from nnunet_topo.errors import CheckpointError, ConfigError, DataError
from nnunet_topo.training.trainers import nnUNetTrainerTopo, nnUNetTrainerTopoProgressive

SHORT = {
    "name": "short",
    "epochs": 1,
    "iterations_per_epoch": 1,
    "validation_iterations": 1,
    "phases": [{"from": 0, "weights": {"dice": 1.0, "ce": 1.0}}],
}


def recipe_file(folder: Path, **changes: object) -> Path:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({**SHORT, "name": "mine", **changes}))
    return file


def full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class TestWhichRecipe:
    def test_default_of_the_trainer(self, make_trainer) -> None:
        assert make_trainer(nnUNetTrainerTopo).recipe.name == "nnunet"
        trainer = make_trainer(nnUNetTrainerTopoProgressive)
        assert trainer.recipe.name == "progressive"
        assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.initial_lr) == (1000, 250, 0.01)

    def test_plans_win_over_the_default(self, make_trainer) -> None:
        assert make_trainer(nnUNetTrainerTopoProgressive, recipe=SHORT).recipe.name == "short"

    def test_environment_wins_over_plans(self, make_trainer, monkeypatch, tmp_path) -> None:
        monkeypatch.setenv("NNUNET_TOPO_RECIPE", str(recipe_file(tmp_path)))
        trainer = make_trainer(nnUNetTrainerTopo, recipe=SHORT)
        assert (trainer.recipe.name, trainer.resolved.source) == ("mine", "environment")

    def test_resolved_recipe_stands_in_the_checkpoint_and_beside_it(self, make_trainer) -> None:
        trainer = make_trainer(nnUNetTrainerTopo, recipe=SHORT)
        trainer.run_training()
        folder = Path(trainer.output_folder)
        saved = torch.load(folder / "checkpoint_final.pth", weights_only=True)["nnunet_topo"]["recipe"]
        assert saved == trainer.recipe.to_mapping() == yaml.safe_load((folder / "topo_recipe.yaml").read_text())

    def test_checkpoint_gives_the_recipe_when_nobody_named_one(self, make_trainer) -> None:
        trained = make_trainer(nnUNetTrainerTopo, recipe=SHORT)
        trained.run_training()
        file = str(Path(trained.output_folder) / "checkpoint_final.pth")
        for continue_training in (False, True):
            trainer = make_trainer(nnUNetTrainerTopo, continue_training=continue_training)
            trainer.load_checkpoint(file)
            assert (trainer.recipe.name, trainer.resolved.source, trainer.num_epochs) == ("short", "checkpoint", 1)

    def test_another_named_recipe_is_refused_when_the_training_goes_on(
        self, make_trainer, monkeypatch, tmp_path
    ) -> None:
        trained = make_trainer(nnUNetTrainerTopo, recipe=SHORT)
        trained.run_training()
        file = str(Path(trained.output_folder) / "checkpoint_final.pth")
        monkeypatch.setenv("NNUNET_TOPO_RECIPE", str(recipe_file(tmp_path, optimizer={"lr": 0.5})))
        with pytest.raises(CheckpointError, match=r"optimizer\.lr.*0\.5"):
            make_trainer(nnUNetTrainerTopo, continue_training=True).load_checkpoint(file)

    @pytest.mark.parametrize(
        "changes",
        [
            {"optimizer": {"name": "adamw"}},
            {"trainable": ["decoder.seg_layers.*"]},
            {"plateau": None, "noise": None, "averaging": None},
        ],
    )
    def test_a_validation_takes_the_checkpoints_own_whatever_is_named(
        self, make_trainer, monkeypatch, tmp_path, changes: dict
    ) -> None:
        recipe = {**SHORT, "plateau": {}, "noise": {}, "averaging": {"kind": "ema", "start": 0}}
        trained = make_trainer(nnUNetTrainerTopo, recipe=recipe)
        trained.run_training()
        monkeypatch.setenv("NNUNET_TOPO_RECIPE", str(recipe_file(tmp_path, **changes)))
        trainer = make_trainer(nnUNetTrainerTopo)
        trainer.load_checkpoint(str(Path(trained.output_folder) / "checkpoint_final.pth"))
        assert (trainer.recipe.name, trainer.resolved.source) == ("short", "checkpoint")
        weights = trained.network.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in trainer.network.state_dict().items())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"optimizer": {"name": "adamw"}}, r"that of adamw over (\d+) .*that of sgd over \1\."),
            ({"trainable": ["decoder.seg_layers.*"]}, r"that of sgd over 4 .*that of sgd over \d\d\."),
        ],
    )
    def test_a_stock_checkpoint_of_another_optimiser_is_refused(self, make_trainer, change: dict, message: str) -> None:
        trained = make_trainer(nnUNetTrainerTopo, recipe=SHORT)
        trained.run_training()
        file = Path(trained.output_folder) / "checkpoint_final.pth"
        checkpoint = torch.load(file, weights_only=True)
        del checkpoint["nnunet_topo"]  # what is left is stock nnU-Net's
        torch.save(checkpoint, file)
        trainer = make_trainer(nnUNetTrainerTopo, continue_training=True, recipe={**SHORT, **change})
        with pytest.raises(CheckpointError, match=message):
            trainer.load_checkpoint(str(file))

    def test_a_full_disk_at_the_start_is_one_line(self, make_trainer, monkeypatch) -> None:
        trainer = make_trainer(nnUNetTrainerTopo, recipe=SHORT)
        monkeypatch.setattr("nnunet_topo.training.atomic.os.fsync", full)
        with pytest.raises(DataError, match=r"^recipe: .*No space left.*topo_recipe\.yaml"):
            trainer.run_training()

    def test_fold_with_another_recipe_than_its_siblings_is_refused(self, make_trainer) -> None:
        make_trainer(nnUNetTrainerTopo, recipe=SHORT).run_training()
        other = make_trainer(nnUNetTrainerTopo, fold=1, recipe={**SHORT, "gradient_clip": 1.0})
        with pytest.raises(CheckpointError, match="gradient_clip"):
            other.run_training()
        make_trainer(nnUNetTrainerTopo, fold=1, recipe=SHORT).run_training()

    def test_folder_without_a_checkpoint_is_no_sibling(self, make_trainer) -> None:
        trained = make_trainer(nnUNetTrainerTopo, recipe=SHORT)
        trained.run_training()
        folder = Path(trained.output_folder)
        for file in folder.glob("checkpoint_*.pth"):
            file.unlink()
        make_trainer(nnUNetTrainerTopo, fold=1, recipe={**SHORT, "gradient_clip": 1.0}).run_training()

    def test_sibling_that_was_imported_without_its_recipe_file(self, make_trainer) -> None:
        trained = make_trainer(nnUNetTrainerTopo, recipe=SHORT)
        trained.run_training()
        (Path(trained.output_folder) / "topo_recipe.yaml").unlink()
        with pytest.raises(CheckpointError, match="gradient_clip"):
            make_trainer(nnUNetTrainerTopo, fold=1, recipe={**SHORT, "gradient_clip": 1.0}).run_training()


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"early_stopping": {"patience": 0}}, "early_stopping"),
            ({"monitor": {"best": "validation_loss"}}, "validation_loss"),
            ({"sampling": {"mirror_axes": [3]}}, "mirror_axes"),
            ({"phases": [{"from": 0, "weights": {"dice": 0.0}}]}, "0"),
            ({"phases": [{"from": 0, "weights": {"dice": -1.0}}]}, "-1"),
            ({"phases": [{"from": 0, "weights": {"dcie": 1.0}}]}, "dice"),
            ({"epohcs": 3}, "epochs"),
        ],
    )
    def test_settings(self, make_trainer, change: dict, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            make_trainer(nnUNetTrainerTopo, recipe={**SHORT, **change})

    def test_unknown_recipe_in_the_environment(self, make_trainer, monkeypatch) -> None:
        monkeypatch.setenv("NNUNET_TOPO_RECIPE", "progresive")
        with pytest.raises(ConfigError, match="progressive"):
            make_trainer(nnUNetTrainerTopo)

    def test_class_weights_of_another_number_of_classes(self, make_trainer) -> None:
        recipe = {**SHORT, "losses": {"ce": {"class_weights": [1.0, 2.0]}}}
        make_trainer(nnUNetTrainerTopo, "plain", recipe=recipe).initialize()
        with pytest.raises(ConfigError, match=r"ce\.class_weights: expected 3 numbers"):
            make_trainer(nnUNetTrainerTopo, "classes", recipe=recipe).initialize()

    def test_refusal_leaves_no_folder_behind(self, make_trainer, nnunet: Path) -> None:
        with pytest.raises(ConfigError):
            make_trainer(nnUNetTrainerTopo, recipe={**SHORT, "early_stopping": {"patience": 0}})
        assert not nnunet.exists()

    def test_label_outside_the_dataset_in_the_preprocessed_data(
        self, make_trainer, preprocessed, tmp_path, monkeypatch
    ):
        import blosc2

        copy = tmp_path / "preprocessed"
        shutil.copytree(preprocessed / "nnUNet_preprocessed", copy)
        monkeypatch.setenv("nnUNet_preprocessed", str(copy))
        file = next(copy.glob("Dataset901_plain/nnUNetPlans_3d_fullres/c1_seg.b2nd"))
        values = blosc2.open(str(file))[:].copy()
        values[0, 0, 0, 0] = 7
        file.unlink()
        blosc2.asarray(np.ascontiguousarray(values), urlpath=str(file))
        trainer = make_trainer(nnUNetTrainerTopo, recipe=SHORT)
        with pytest.raises(DataError, match=r"7.*c1|c1.*7"):
            trainer.run_training()
        assert trainer.current_epoch == 0


class TestSampling:
    def test_oversampling_and_mirroring(self, make_trainer) -> None:
        sampling = {"foreground": 0.75, "probabilistic": True, "mirror_axes": [0, 2]}
        trainer = make_trainer(nnUNetTrainerTopo, recipe={**SHORT, "sampling": sampling})
        trainer.run_training()
        assert (trainer.oversample_foreground_percent, trainer.probabilistic_oversampling) == (0.75, True)
        assert trainer.inference_allowed_mirroring_axes == (0, 2)

    def test_no_mirroring(self, make_trainer) -> None:
        trainer = make_trainer(nnUNetTrainerTopo, recipe={**SHORT, "sampling": {"mirror_axes": []}})
        trainer.run_training()
        saved = torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=True)
        assert saved["inference_allowed_mirroring_axes"] is None


class TestOptimisation:
    def test_adamw(self, make_trainer) -> None:
        optimizer = {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-2}
        trainer = make_trainer(nnUNetTrainerTopo, recipe={**SHORT, "optimizer": optimizer})
        trainer.initialize()
        assert type(trainer.optimizer) is torch.optim.AdamW
        assert trainer.optimizer.param_groups[0]["weight_decay"] == 1e-2

    def test_gradient_clip(self, make_trainer) -> None:
        norms = {}
        for clip in (1e-3, None):
            trainer = make_trainer(nnUNetTrainerTopo, recipe={**SHORT, "gradient_clip": clip})
            trainer.on_train_start()
            trainer.on_train_epoch_start()
            trainer.train_step(next(trainer.dataloader_train))
            gradients = [parameter.grad for parameter in trainer.network.parameters() if parameter.grad is not None]
            squares = [gradient.square().sum() for gradient in gradients]
            norms[clip] = float(torch.stack(squares).sum().sqrt())
        assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3)
        assert norms[None] > 0.01

    def test_trainable_patterns_freeze_the_rest(self, make_trainer) -> None:
        trainer = make_trainer(nnUNetTrainerTopo, recipe={**SHORT, "trainable": ["decoder.seg_layers.*"]})
        trainer.initialize()
        with torch.no_grad():
            next(trainer.network.parameters()).add_(0.01)  # what -pretrained_weights does at this point
        before = {name: value.clone() for name, value in trainer.network.named_parameters()}
        trainer.run_training()
        changed = {name for name, value in trainer.network.named_parameters() if not torch.equal(value, before[name])}
        assert changed
        assert all(name.startswith("decoder.seg_layers.") for name in changed)

    def test_a_frozen_network_does_not_start_at_random(self, make_trainer) -> None:
        trainer = make_trainer(nnUNetTrainerTopo, recipe={**SHORT, "trainable": ["decoder.seg_layers.*"]})
        with pytest.raises(ConfigError, match="start_from: expected a model folder, got null"):
            trainer.run_training()

    def test_a_negative_index_counts_from_the_end(self, make_trainer) -> None:
        trainer = make_trainer(nnUNetTrainerTopo, recipe={**SHORT, "trainable": ["decoder.stages.-1.*"]})
        trainer.initialize()
        free = {name for name, value in trainer.network.named_parameters() if value.requires_grad}
        last = len(trainer.network.decoder.stages) - 1
        assert last > 0
        assert free
        assert all(name.startswith(f"decoder.stages.{last}.") for name in free)

    def test_a_negative_index_too_far_is_refused(self, make_trainer) -> None:
        trainer = make_trainer(nnUNetTrainerTopo, recipe={**SHORT, "trainable": ["decoder.stages.-9.*"]})
        with pytest.raises(ConfigError, match=r"decoder\.stages"):
            trainer.initialize()

    def test_pattern_without_a_parameter_is_refused(self, make_trainer) -> None:
        trainer = make_trainer(nnUNetTrainerTopo, recipe={**SHORT, "trainable": ["decoder.seg_layer.*"]})
        with pytest.raises(ConfigError, match="seg_layer"):
            trainer.initialize()

    def test_noise_that_would_reach_frozen_parameters_only_is_refused(self, make_trainer) -> None:
        frozen = {"trainable": ["encoder.*"], "noise": {"parameters": ["decoder.seg_layers.*"]}}
        with pytest.raises(ConfigError, match=r"noise\.parameters: .*seg_layers.*trainable is \['encoder\.\*'\]"):
            make_trainer(nnUNetTrainerTopo, recipe={**SHORT, **frozen}).initialize()
        frozen["noise"]["parameters"].append("encoder.*")
        make_trainer(nnUNetTrainerTopo, recipe={**SHORT, **frozen}).initialize()


class TestStartFrom:
    @pytest.fixture
    def strong(self, make_trainer) -> Path:
        trainer = make_trainer(nnUNetTrainerTopoProgressive, recipe=SHORT)
        trainer.run_training()
        return Path(trainer.output_folder)

    def test_same_fold_heads_included(self, make_trainer, strong: Path) -> None:
        recipe = {**SHORT, "name": "fine", "start_from": str(strong.parent)}
        trainer = make_trainer(nnUNetTrainerTopo, recipe=recipe)
        trainer.on_train_start()
        weights = torch.load(strong / "checkpoint_final.pth", weights_only=True)["network_weights"]
        assert all(torch.equal(value, weights[name]) for name, value in trainer.network.state_dict().items())

    def test_relative_to_the_results(self, make_trainer, strong: Path, nnunet: Path) -> None:
        recipe = {**SHORT, "start_from": str(strong.parent.relative_to(nnunet))}
        make_trainer(nnUNetTrainerTopo, recipe=recipe).on_train_start()

    @pytest.mark.parametrize("place", ["fold_0", "fold_0/checkpoint_final.pth"])
    def test_another_fold_is_a_leak(self, make_trainer, strong: Path, place: str) -> None:
        recipe = {**SHORT, "start_from": str(strong.parent / place)}
        with pytest.raises(CheckpointError, match="leak"):
            make_trainer(nnUNetTrainerTopo, fold=1, recipe=recipe).on_train_start()

    def test_missing_fold(self, make_trainer, strong: Path) -> None:
        recipe = {**SHORT, "start_from": str(strong.parent)}
        with pytest.raises(CheckpointError, match="fold_1"):
            make_trainer(nnUNetTrainerTopo, fold=1, recipe=recipe).on_train_start()

    def test_not_together_with_pretrained_weights(self, make_trainer, strong: Path) -> None:
        trainer = make_trainer(nnUNetTrainerTopo, recipe={**SHORT, "start_from": str(strong.parent)})
        trainer.initialize()
        with torch.no_grad():
            next(trainer.network.parameters()).add_(1)
        with pytest.raises(ConfigError, match="pretrained_weights"):
            trainer.on_train_start()


def test_network_settings_outside_plans_are_reported(make_trainer, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("NNUNET_TOPO_RECIPE", str(recipe_file(tmp_path, network={"batch_size": 3})))
    trainer = make_trainer(nnUNetTrainerTopo)
    trainer.run_training()
    lines = [json.loads(line) for line in (Path(trainer.output_folder) / "topo_journal.jsonl").read_text().splitlines()]
    assert any(line.get("what") == "network settings not applied" for line in lines)
    assert "network settings not applied" in Path(trainer.log_file).read_text()


def test_state_of_an_unknown_control_is_refused(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, recipe=SHORT)
    trainer.run_training()
    file = Path(trainer.output_folder) / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["nnunet_topo"]["controls"]["clairvoyance"] = {}
    with pytest.raises(CheckpointError, match="got that of 'clairvoyance'"):
        make_trainer(nnUNetTrainerTopo, recipe=SHORT).load_checkpoint(checkpoint)


def test_learning_rate_multiplier_survives_a_checkpoint(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, recipe=SHORT)
    trainer.initialize()
    trainer.learning_rate.multiplier = 0.25
    file = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    resumed = make_trainer(nnUNetTrainerTopo, recipe=SHORT, continue_training=True)
    resumed.load_checkpoint(str(file))
    resumed.lr_scheduler.step(0)
    assert resumed.optimizer.param_groups[0]["lr"] == 0.25 * resumed.recipe.optimizer.lr
