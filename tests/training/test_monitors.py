"""Fixed patches and what is measured on them."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_topo.losses import View, make_term
from nnunet_topo.metrics.betti import betti_errors, betti_numbers
from nnunet_topo.recipe import recipe_from_mapping
from nnunet_topo.training.loggers import mend_moving_average
from nnunet_topo.training.monitors import (
    Monitors,
    gathered,
    monitored_terms,
    predicted_structures,
    reference_weights,
    topology_error,
)
from nnunet_topo.training.patches import Patch, draw_patches
from nnunet_topo.training.record import gradient_norm_record
from nnunet_topo.training.targets import AppendLabelTargets
from nnunet_topo.training.trainers import nnUNetTrainerTopo

CPU = torch.device("cpu")
SHORT = {
    "name": "short",
    "epochs": 2,
    "iterations_per_epoch": 1,
    "validation_iterations": 1,
    "monitor": {"patches": 6},
    "phases": [{"from": 0, "weights": {"dice": 1.0}}, {"from": 1, "weights": {"dice": 0.7, "boundary": 0.3}}],
}


def recipe(*phases: dict[str, float], **settings: object):
    listed = [{"from": start, "weights": weights} for start, weights in enumerate(phases)]
    return recipe_from_mapping({"name": "test", "phases": listed, **settings}, "test")


class TestReference:
    def test_weights_are_those_of_the_last_phase(self) -> None:
        progressive = recipe({"dice": 1.0}, {"focal": 0.5, "dice": 0.0}, {"dice": 0.8, "ce": 0.2})
        assert reference_weights(progressive) == {"dice": 0.8, "ce": 0.2}
        assert monitored_terms(progressive) == ("dice", "focal", "ce")

    def test_stock_loss_counts_as_dice_and_ce(self) -> None:
        assert reference_weights(recipe({"nnunet": 1.0})) == {"dice": 1.0, "ce": 1.0}
        mixed = recipe({"nnunet": 0.5, "cldice": 0.1, "ce": 0.2})
        assert reference_weights(mixed) == {"dice": 0.5, "ce": pytest.approx(0.7), "cldice": 0.1}

    def test_chosen_weights(self) -> None:
        chosen = recipe({"dice": 1.0}, monitor={"reference_weights": {"focal": 2.0, "dice": 0.0}})
        assert reference_weights(chosen) == {"focal": 2.0}
        assert monitored_terms(chosen) == ("dice", "focal", "ce")


class TestPatches:
    def started(self, make_trainer, kind: str, **changes: object):
        trainer = make_trainer(nnUNetTrainerTopo, kind, recipe={**SHORT, **changes})
        trainer.on_train_start()
        return trainer

    @pytest.mark.parametrize("kind", ["plain", "ignore", "classes", "regions"])
    def test_the_same_for_every_recipe_and_at_every_start(self, make_trainer, kind: str) -> None:
        first = self.started(make_trainer, kind, seed=1).monitors.patches
        np.random.seed(99)
        other_recipe = {"phases": SHORT["phases"][:1], "seed": 7, "monitor": {"patches": 3}}
        second = self.started(make_trainer, kind, **other_recipe).monitors.patches
        assert [patch.case for patch in first[:3]] == [patch.case for patch in second]
        for one, other in zip(first, second, strict=False):
            assert torch.equal(one.data, other.data)
            assert torch.equal(one.labels, other.labels)
        assert not torch.equal(first[0].data, first[2].data)

    @pytest.mark.parametrize("kind", ["plain", "ignore", "classes", "regions"])
    def test_validation_cases_without_augmentation_half_on_foreground(self, make_trainer, kind: str) -> None:
        trainer = self.started(make_trainer, kind)
        patches = trainer.monitors.patches
        assert {patch.case for patch in patches} == set(trainer.do_split()[1])
        size = tuple(trainer.configuration_manager.patch_size)
        for index, patch in enumerate(patches):
            image, labels, _, _ = trainer.validation_cases.load_case(patch.case)
            # nnU-Net's patches may reach past the image's end when they are centred on a voxel.
            image, labels = (np.pad(part[:], [(0, 0), *[(0, edge) for edge in size]]) for part in (image, labels))
            whole = torch.from_numpy(image.astype(np.float32))
            windows = whole.unfold(1, size[0], 1).unfold(2, size[1], 1).unfold(3, size[2], 1)
            found = (windows[0] == patch.data[0, 0]).flatten(3).all(-1).nonzero()
            assert len(found) == 1  # a piece of the preprocessed image, voxel by voxel
            x, y, z = found[0].tolist()
            truth = np.clip(labels[0, x : x + size[0], y : y + size[1], z : z + size[2]], 0, None)
            if kind != "regions":
                assert np.array_equal(patch.labels[0, 0].numpy(), truth)
            assert patch.targets["signed_distance"].shape[2:] == size
            foreground = (truth > 0) & (truth != {"ignore": 2, "regions": 3}.get(kind))
            if index % 2 == 0:
                assert foreground.any()

    def test_other_seed_other_patches(self, make_trainer) -> None:
        first = self.started(make_trainer, "plain").monitors.patches
        second = self.started(make_trainer, "plain", monitor={"patches": 6, "seed": 1}).monitors.patches
        assert any(not torch.equal(a.data, b.data) for a, b in zip(first, second, strict=True))

    def test_the_global_random_states_are_left_alone(self, make_trainer) -> None:
        trainer = self.started(make_trainer, "plain")
        state, torch_state = np.random.get_state(), torch.get_rng_state()
        Monitors.of(trainer, trainer.validation_cases)
        after = np.random.get_state()
        assert np.array_equal(after[1], state[1])
        assert after[2:] == state[2:]
        assert torch.equal(torch.get_rng_state(), torch_state)


class Cascade:
    """A dataset of one flat case whose previous stage predicted something."""

    identifiers = ("only",)

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.image = rng.normal(size=(2, 6, 20, 22)).astype(np.float32)
        self.labels = rng.integers(0, 3, (1, 6, 20, 22)).astype(np.int16)
        self.before = rng.integers(0, 3, (6, 20, 22)).astype(np.int16)
        places = {value: np.argwhere(self.labels == value) for value in (1, 2)}
        self.properties = {"class_locations": places}

    def load_case(self, _: str) -> tuple:
        return self.image, self.labels, self.before, self.properties


@pytest.mark.parametrize("patch_size", [(4, 8, 10), (8, 10)])
def test_previous_stage_becomes_input_as_in_training(patch_size: tuple[int, ...]) -> None:
    labels = SimpleNamespace(all_labels=[0, 1, 2], has_ignore_label=False)
    transforms = nnUNetTrainerTopo.get_validation_transforms(None, is_cascaded=True, foreground_labels=[1, 2])
    targets = AppendLabelTargets(["signed_distance"], ignore_label=None, regions=False, spacing=None, structures=2)
    dataset = Cascade()
    drawn = draw_patches(dataset, labels, patch_size, 4, transforms=transforms, label_targets=targets, seed=3)
    for patch in drawn:
        assert patch.data.shape == (1, 4, *patch_size)
        assert patch.labels.shape == (1, 1, *patch_size)
        assert patch.targets["signed_distance"].shape == (1, 2, *patch_size)
        image, before = patch.data[0, :2].numpy(), patch.data[0, 2:].numpy()
        inside = (image != 0).all(0)  # the rest lies past the end of the case
        place = np.argwhere(np.isclose(dataset.image[0], image[0][inside][0]))[0] - (
            [0] * (3 - len(patch_size)) + list(np.argwhere(inside)[0])
        )
        full = (1, *patch_size) if len(patch_size) == 2 else patch_size
        window = tuple(slice(start, start + size) for start, size in zip(place, full, strict=True))
        expected = np.stack([dataset.before[window] == value for value in (1, 2)]).reshape(2, -1)
        assert np.array_equal(before[:, inside], expected)


class Fixed(nn.Module):
    """A network that gives the logits it was made with, whatever it sees."""

    def __init__(self, logits: list[torch.Tensor]) -> None:
        super().__init__()
        self.logits = iter(logits)
        self.modes: list[bool] = []

    def forward(self, _: torch.Tensor) -> list[torch.Tensor]:
        self.modes.append(self.training)
        logits = next(self.logits)
        return [logits, logits[..., ::2]]


def labels_and_logits(seed: int, *, classes: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes + 1, (1, 1, 9, 11, 10))  # the highest is ignored
    logits = rng.normal(0, 2, (1, classes, 9, 11, 10))
    return torch.from_numpy(labels.astype(np.int16)), torch.from_numpy(logits.astype(np.float32))


def monitors(pairs: list[tuple[torch.Tensor, torch.Tensor]], names=("dice", "ce"), **weights: float) -> Monitors:
    ignore = pairs[0][1].shape[1]
    given = [Patch(f"c{i}", torch.zeros(1, 1, 9, 11, 10), labels, {}) for i, (labels, _) in enumerate(pairs)]
    return Monitors(given, {name: make_term(name, ignore_label=ignore) for name in names}, weights or {"dice": 1.0})


class TestMeasurement:
    def test_values_against_slow_ones(self) -> None:
        pairs = [labels_and_logits(seed) for seed in range(4)]
        used = monitors(pairs, dice=0.7, ce=0.3)
        network = Fixed([logits for _, logits in pairs]).train()
        measured = used.measure(network, CPU, nullcontext())
        assert network.modes == [False] * 4
        assert network.training
        shares, errors, terms = [], [], {"dice": [], "ce": []}
        for labels, logits in pairs:
            truth, valid = labels[0, 0].numpy(), labels[0, 0].numpy() != 2
            predicted = (logits[0, 1] > logits[0, 0]).numpy() & valid
            shares.append((predicted.sum() / valid.sum(), (truth[valid] == 1).mean()))
            labelled = (truth == 1) & valid
            features = sum(betti_numbers(predicted)) + sum(betti_numbers(labelled))
            dice = 2 * (predicted & labelled).sum() / (predicted.sum() + labelled.sum())
            errors.append(0.3 * sum(betti_errors(predicted, labelled)) / features + 0.7 * (1 - dice))
            for name, values in terms.items():
                values.append(float(make_term(name, ignore_label=2)(logits, labels)))
        found = measured["monitors"]
        assert found["foreground_predicted"] == pytest.approx(np.mean([one for one, _ in shares]))
        assert found["foreground_labelled"] == pytest.approx(np.mean([one for _, one in shares]))
        assert found["foreground_spread"] == pytest.approx(np.std([one for one, _ in shares]))
        assert found["topology_error"] == pytest.approx(np.mean(errors))
        assert 0 < found["topology_error"] < 1
        expected = {name: np.mean(values) for name, values in terms.items()}
        assert measured["reference_terms"] == pytest.approx(expected)
        assert found["reference_loss"] == pytest.approx(0.7 * expected["dice"] + 0.3 * expected["ce"])

    def test_weights_of_the_epoch_do_not_matter(self, make_trainer) -> None:
        trainer = make_trainer(nnUNetTrainerTopo, recipe=SHORT)
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        first = trainer.monitors.measure(trainer.network, CPU, nullcontext())
        trainer.current_epoch = 1
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        assert trainer.phases.weights["boundary"] == 0.3
        assert trainer.monitors.measure(trainer.network, CPU, nullcontext()) == first

    def test_a_perfect_prediction(self) -> None:
        labels, _ = labels_and_logits(0)
        logits = torch.where(torch.cat([labels == 0, labels == 1], 1), 20.0, -20.0)
        found = monitors([(labels, logits)]).measure(Fixed([logits]), CPU, nullcontext())["monitors"]
        assert found["topology_error"] == 0
        assert found["reference_loss"] == pytest.approx(0, abs=1e-4)
        assert found["foreground_predicted"] == found["foreground_labelled"]

    def test_what_is_not_finite_is_none(self) -> None:
        labels, logits = labels_and_logits(0)
        logits[:, 1, 0] = math.nan
        measured = monitors([(labels, logits)]).measure(Fixed([logits]), CPU, nullcontext())
        assert measured["monitors"]["reference_loss"] is None
        assert measured["reference_terms"]["ce"] is None
        assert measured["monitors"]["foreground_labelled"] is not None

    def test_an_ignored_patch_is_finite(self) -> None:
        labels, logits = labels_and_logits(0)
        labels.fill_(2)
        found = monitors([(labels, logits)]).measure(Fixed([logits]), CPU, nullcontext())["monitors"]
        assert (found["foreground_predicted"], found["topology_error"]) == (0, 0)

    def test_classes_are_counted_one_by_one(self) -> None:
        labels = torch.zeros(1, 1, 9, 11, 10, dtype=torch.int16)
        labels[..., 2:5, 3:5] = 1
        labels[..., 2:5, 5:8] = 2
        swapped = torch.where(labels > 0, 3 - labels, 0)
        swapped[..., 8, 8] = 1  # one component too many of class 1, none of class 2
        logits = torch.cat([torch.where(swapped == c, 9.0, -9.0) for c in range(3)], 1)
        found = monitors([(labels, logits)]).measure(Fixed([logits]), CPU, nullcontext())["monitors"]
        # Dice is 0 for both but for one voxel; the numbers are those of both, and one component more.
        assert found["topology_error"] == pytest.approx((0.3 / 3 + 0.7 + 0.7) / 2)

    def test_regions_may_overlap(self) -> None:
        onehot = torch.zeros(1, 3, 6, 7, 8, dtype=torch.bool)
        onehot[:, 0, 2:5] = onehot[:, 1, 3] = onehot[:, 2, 0] = True
        logits = torch.where(onehot[:, :2], 5.0, -5.0)
        logits[:, 0, 0] = 5.0  # where nothing is known
        view = View(logits, onehot, ignore_label=3, regions=True)
        assert torch.equal(predicted_structures(view), onehot[:, :2])

    def test_two_dimensions_and_the_crop(self) -> None:
        labels = torch.zeros(1, 1, 300, 260, dtype=torch.int16)
        labels[..., 100:200, 100:150] = 1
        logits = torch.cat([torch.where(labels == c, 9.0, -9.0) for c in range(2)], 1)
        logits[:, 1, :10, :2] = 20.0  # outside the middle that topology is counted in
        patch = Patch("c", torch.zeros(1, 1, 300, 260), labels, {})
        used = Monitors([patch], {"dice": make_term("dice")}, {"dice": 1.0})
        found = used.measure(Fixed([logits]), CPU, nullcontext())["monitors"]
        assert found["topology_error"] == 0
        assert found["foreground_predicted"] > found["foreground_labelled"]


def block(*places: slice) -> np.ndarray:
    """(1, 8, 9) masks with a solid rectangle at each place of the first axis."""
    mask = np.zeros((1, 8, 9), bool)
    for place in places:
        mask[0, place, 2:7] = True
    return mask


class TestTopologyError:
    def error(self, predicted: np.ndarray, labelled: np.ndarray) -> float:
        return topology_error(predicted, labelled, [betti_numbers(mask) for mask in labelled])

    def test_values(self) -> None:
        nothing, one, two = block(), block(slice(1, 4)), block(slice(1, 4), slice(5, 8))
        assert self.error(nothing, nothing) == self.error(two, two) == 0
        assert self.error(nothing, one) == self.error(one, nothing) == 1
        assert self.error(two, one) == pytest.approx(0.3 / 3 + 0.7 * (1 - 2 / 3))

    def test_a_hole_costs_more_than_its_voxel(self) -> None:
        one = block(slice(1, 4))
        hole, dent = one.copy(), one.copy()
        hole[0, 2, 4] = dent[0, 1, 2] = False
        assert self.error(hole, one) > 4 * self.error(dent, one) > 0

    def test_the_right_number_in_the_wrong_place_is_no_success(self) -> None:
        """Else the first blobs of a network could stay the best of the run."""
        labelled = block(slice(1, 4))
        displaced, nearly = block(slice(5, 8)), labelled | block(slice(6, 7))
        assert self.error(displaced, labelled) > self.error(nearly, labelled)


def test_gathering_orders_by_number() -> None:
    assert gathered({2: "c", 0: "a", 1: "b"}) == ["a", "b", "c"]


def test_journal_holds_the_monitors_of_every_epoch(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, "ignore", recipe={**SHORT, "conflict_every": 1})
    trainer.run_training()
    lines = [line for line in trainer.journal.lines() if line["kind"] == "epoch"]
    names = ["reference_loss", "topology_error", "foreground_predicted", "foreground_labelled", "foreground_spread"]
    names += ["gradient_norm", "validation_loss", "pseudo_dice", "ema_pseudo_dice"]
    for line in lines:
        assert set(line["monitors"]) == set(names)
        assert all(isinstance(line["monitors"][name], float) for name in names)
        assert set(line["reference_terms"]) == {"dice", "boundary", "ce"}
        assert set(line["conflict"]) == {"dice|boundary"}
        assert -1 <= line["conflict"]["dice|boundary"] <= 1
        assert line["monitors"]["validation_loss"] == pytest.approx(line["validation"]["loss"])
    assert lines[0]["monitors"]["foreground_labelled"] == lines[1]["monitors"]["foreground_labelled"]


def test_gradient_norm_is_the_mean_before_clipping(make_trainer) -> None:
    norms = {}
    for clip in (1e-3, None):
        torch.manual_seed(0)
        trainer = make_trainer(nnUNetTrainerTopo, recipe={**SHORT, "gradient_clip": clip, "seed": 4})
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        norms[clip] = float(trainer.train_step(next(trainer.dataloader_train))["gradient_norm"])
        gradients = [p.grad for p in trainer.network.parameters() if p.grad is not None]
        after = float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt())
        assert after == pytest.approx(clip or norms[clip], rel=1e-3)
    assert norms[1e-3] == norms[None] > 0.01


def test_gradient_norms_that_are_not_finite_do_not_count() -> None:
    outputs = [{"gradient_norm": value} for value in (1.0, math.inf, 3.0, math.nan)]
    assert gradient_norm_record(outputs) == 2
    assert gradient_norm_record(outputs[1:2]) is None


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ([0.5, math.nan, 0.9], [0.5, 0.5, 0.54]),
        ([math.nan, math.nan, 0.4, 0.5], [math.nan, math.nan, 0.4, 0.41]),
        ([0.1, 0.2], [0.1, 0.11]),
    ],
)
def test_one_nan_does_not_poison_the_moving_average(make_trainer, dice: list, expected: list) -> None:
    logger = make_trainer(nnUNetTrainerTopo, recipe=SHORT).logger
    for epoch, value in enumerate(dice):
        logger.log("mean_fg_dice", value, epoch)
        mend_moving_average(logger)
    assert logger.get_value("ema_fg_dice", step=None) == pytest.approx(expected, nan_ok=True)


def test_best_checkpoint_survives_a_nan_in_the_first_epoch(make_trainer, monkeypatch) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, recipe={**SHORT, "epochs": 3})
    outcomes = iter([math.nan, 0.5, 0.7])
    saved = []
    monkeypatch.setattr("numpy.nanmean", lambda _: next(outcomes))
    monkeypatch.setattr(trainer, "save_checkpoint", lambda file: saved.append((trainer.current_epoch, file[-8:])))
    trainer.run_training()
    assert [epoch for epoch, name in saved if name == "best.pth"] == [0, 1, 2]
    assert trainer._best_ema == pytest.approx(0.52)


def test_the_trainer_of_stock_has_the_monitors_too(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo)
    trainer.on_train_start()
    assert set(trainer.monitors.terms) == {"dice", "ce"}
    assert trainer.monitors.weights == {"dice": 1.0, "ce": 1.0}
