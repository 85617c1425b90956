"""Steps whose loss or gradient is not finite."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_topo.errors import DataError
from nnunet_topo.training.guards import NonFiniteGuard, is_finite, poisoned, sound_steps
from nnunet_topo.training.trainers import nnUNetTrainerTopo

RECIPE = {
    "name": "guarded",
    "epochs": 2,
    "iterations_per_epoch": 4,
    "validation_iterations": 1,
    "max_nonfinite_steps": 3,
    "phases": [{"from": 0, "weights": {"dice": 1.0, "ce": 1.0}}],
}


def spoil(trainer, steps: set[int]) -> list[bool]:
    """Put NaN into the images of some steps; the list says of every step whether the weights changed."""
    original, changed = trainer.train_step, []

    def step(batch):
        if len(changed) in steps:
            batch["data"][:, :, :2] = math.nan
        before = [parameter.detach().clone() for parameter in trainer.network.parameters()]
        outputs = original(batch)
        changed.append(any(not torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True)))
        return outputs

    trainer.train_step = step
    return changed


def events(trainer) -> list[dict]:
    lines = [json.loads(line) for line in (Path(trainer.output_folder) / "topo_journal.jsonl").read_text().splitlines()]
    return [line for line in lines if line.get("what") == "step skipped"]


def test_a_step_that_is_not_finite_changes_nothing_and_is_journalled(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
    changed = spoil(trainer, {1, 2, 4})
    trainer.run_training()
    assert changed == [True, False, False, True, False, True, True, True]
    found = events(trainer)
    assert [event["epoch"] for event in found] == [0, 0, 1]
    assert [event["why"].split(", ")[1][:10] for event in found] == ["1 in a row", "2 in a row", "1 in a row"]
    for event in found:
        assert event["to"]["loss"] == "nan"
        assert set(event["to"]["terms"]) == {"dice", "ce"}
        assert set(event["to"]["cases"]) <= {"c0", "c1"}
        assert len(event["to"]["cases"]) == 2
    means = trainer.logger.get_value("train_losses", step=None)
    assert all(math.isfinite(mean) for mean in means)
    assert is_finite(trainer.network)


def test_too_many_in_a_row_end_the_run_with_the_last_good_state_on_disk(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
    changed = spoil(trainer, {2, 3, 4, 5, 6, 7})
    with pytest.raises(DataError, match=r"max_nonfinite_steps: .*cases of the last one: c\d, c\d"):
        trainer.run_training()
    assert len(changed) == 5
    latest = torch.load(Path(trainer.output_folder) / "checkpoint_latest.pth", weights_only=True)
    assert latest["current_epoch"] == 1
    assert latest["nnunet_topo"]["position"]["steps"] == 1
    assert latest["nnunet_topo"]["nonfinite_in_a_row"] == 0
    weights = trainer.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in latest["network_weights"].items())


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo, recipe={**RECIPE, "checkpoint_every": 1})
    original = trainer.on_train_epoch_start

    def spoil_weights() -> None:
        original()
        if trainer.current_epoch == 1:
            with torch.no_grad():
                next(trainer.network.parameters()).fill_(math.inf)

    trainer.on_train_epoch_start = spoil_weights
    with pytest.raises(DataError, match="max_nonfinite_steps"):
        trainer.run_training()
    latest = torch.load(Path(trainer.output_folder) / "checkpoint_latest.pth", weights_only=True)
    assert (latest["current_epoch"], latest["nnunet_topo"]["position"]) == (1, None)
    assert all(torch.isfinite(value).all() for value in latest["network_weights"].values())


class TestScaler:
    """A GradScaler looks for its scale by overflowing now and then."""

    @pytest.mark.parametrize(("scale", "counts"), [(65536.0, False), (2.0, False), (1.0, True), (0.5, True)])
    def test_gradient_alone(self, scale: float, counts: bool) -> None:
        guard, scaler = NonFiniteGuard(3), torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale(torch.ones(()))  # the scale exists from the first use on
        fault = guard.examine(1.0, math.inf, {"dice": 1.0}, ["a"], scaler)
        assert (fault is not None, guard.in_a_row) == (counts, int(counts))

    def test_loss_counts_at_any_scale(self) -> None:
        guard, scaler = NonFiniteGuard(3), torch.amp.GradScaler("cpu")
        scaler.scale(torch.ones(()))
        assert guard.examine(math.nan, math.nan, {"dice": math.nan}, ["a"], scaler) is not None
        assert guard.in_a_row == 1

    def test_an_ordinary_skip_neither_counts_nor_forgives(self) -> None:
        guard, scaler = NonFiniteGuard(3), torch.amp.GradScaler("cpu")
        scaler.scale(torch.ones(()))
        guard.examine(math.nan, math.nan, {}, [], scaler)
        guard.examine(1.0, math.inf, {}, [], scaler)
        assert guard.in_a_row == 1
        guard.examine(1.0, 1.0, {}, [], scaler)
        assert guard.in_a_row == 0

    def test_in_a_training(self, make_trainer) -> None:
        """Overflow halves the scale as in stock nnU-Net; a loss that is not finite leaves it."""
        trainer = make_trainer(nnUNetTrainerTopo, recipe=RECIPE)
        trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=10**6)
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        batch = next(trainer.dataloader_train)
        original = trainer.loss
        trainer.loss = torch.nn.Module()
        trainer.loss.forward = lambda output, target: 64 * original(output, target)
        trainer.terms_of = lambda loss: {"dice": loss}
        scales, changed = [], spoil(trainer, set())
        while not changed or not changed[-1]:
            trainer.train_step(batch)
            scales.append(trainer.grad_scaler.get_scale())
        assert scales == [2.0 ** (126 - step) for step in range(len(scales) - 1)] + [scales[-1]]
        assert len(scales) > 1
        assert scales[-1] == scales[-2]  # the step that passed
        assert trainer.guard.in_a_row == 0
        assert events(trainer) == []
        batch["data"][:] = math.nan
        assert bool(trainer.train_step(batch)["skipped"])
        assert trainer.grad_scaler.get_scale() == scales[-1]
        assert trainer.guard.in_a_row == 1
        assert not changed[-1]


def test_poisoned_changes_no_bit_of_a_finite_loss() -> None:
    torch.manual_seed(0)
    weights = torch.randn(50, requires_grad=True)
    plain = (weights**3).sum()
    (expected,) = torch.autograd.grad(plain, weights, retain_graph=True)
    (found,) = torch.autograd.grad(poisoned(plain), weights)
    assert torch.equal(poisoned(plain), plain)
    assert torch.equal(found, expected)
    (spoilt,) = torch.autograd.grad(poisoned((weights**3).sum() + math.inf), weights)
    assert torch.isnan(spoilt).all()


def test_means_leave_skipped_steps_out() -> None:
    outputs = [{"loss": loss, "skipped": np.array(skipped)} for loss, skipped in [(1.0, False), (math.nan, True)]]
    assert [output["loss"] for output in sound_steps(outputs)] == [1.0]
    assert len(sound_steps(outputs[1:])) == 1
