"""Every mechanism acting in one real, short run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_topo.training.trainers import nnUNetTrainerTopo

# The numbers make each mechanism act at an epoch that is known beforehand, whatever the last bits of the machine:
# thresholds that no improvement reaches, and noise that no network survives.
RECIPE: dict[str, Any] = {
    "name": "everything",
    "epochs": 30,
    "iterations_per_epoch": 2,
    "validation_iterations": 1,
    "checkpoint_every": 1,
    "seed": 5,
    "gradient_clip": 1.0,
    "conflict_every": 3,
    "optimizer": {"name": "sgd", "lr": 0.01},
    "lr_schedule": {"name": "plateau", "patience": 4, "factor": 0.5, "threshold": 10.0},
    "monitor": {"patches": 4, "smoothing_epochs": 1},
    "phases": [
        {"from": 0, "weights": {"dice": 0.5, "ce": 0.5}},
        {"from": 2, "weights": {"dice": 0.5, "ce": 0.3, "boundary": 0.2}},
    ],
    "plateau": {
        "patience": 2,
        "threshold": 100.0,
        "cooldown": 1,
        "evaluation_epochs": 2,
        "decay_epochs": 4,
        "max_interventions": 3,
        "policy": "head",
        "actions": ["learning_rate", "loss_weights", "momentum"],
    },
    "rollback": {"degradation_epochs": None, "catastrophic": 0.5, "max_rollbacks": 1},
    "noise": {"start": 13, "every": 5, "std": 30.0, "parameters": "all"},
    "averaging": {"kind": "swa", "start": 12, "every": 2, "lr": 1.0e-3, "anneal_epochs": 2},
    "early_stopping": {"patience": 4},
}


RESUMED_BEHIND = (10, 14)


def without_duration(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the journal but for the time that it took."""
    return {key: value for key, value in line.items() if key != "duration_s"}


def first(trainer: Any) -> torch.Tensor:
    return next(iter(trainer.network.state_dict().values())).clone()


@pytest.mark.slow
def test_each_mechanism_acts_in_a_run(make_trainer, monkeypatch, tmp_path: Path, figures) -> None:
    monkeypatch.setattr("nnunetv2.training.logging.nnunet_logger.LocalLogger.plot_progress_png", lambda *_: None)
    drawn: list[int] = []
    monkeypatch.setattr("nnunet_topo.training.trainers.draw_progress", lambda lines, *_, **__: drawn.append(len(lines)))
    trainer = make_trainer(nnUNetTrainerTopo, "ignore", recipe=RECIPE)
    seen: dict[str, dict[int, torch.Tensor]] = {"start": {}, "trained": {}, "end": {}}
    momentum: dict[int, int] = {}
    steps: list[float] = []

    original = {name: getattr(trainer, name) for name in ("on_train_epoch_start", "on_epoch_end", "train_step")}

    def on_train_epoch_start() -> None:
        original["on_train_epoch_start"]()
        seen["start"][trainer.current_epoch] = first(trainer)
        momentum[trainer.current_epoch] = len(trainer.optimizer.state)

    def on_epoch_end() -> None:
        epoch = trainer.current_epoch
        seen["trained"][epoch] = first(trainer)
        original["on_epoch_end"]()
        seen["end"][epoch] = first(trainer)
        if epoch in RESUMED_BEHIND:
            shutil.copy(Path(trainer.output_folder) / "checkpoint_latest.pth", tmp_path / f"{epoch}.pth")

    def train_step(batch: dict) -> dict:
        outputs = original["train_step"](batch)
        gradients = [p.grad for p in trainer.network.parameters() if p.grad is not None]
        steps.append(float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()))
        return outputs

    monkeypatch.setattr(trainer, "on_train_epoch_start", on_train_epoch_start)
    monkeypatch.setattr(trainer, "on_epoch_end", on_epoch_end)
    monkeypatch.setattr(trainer, "train_step", train_step)
    trainer.run_training()

    lines = trainer.journal.lines()
    epochs = {line["epoch"]: line for line in lines if line["kind"] == "epoch"}
    events = [line for line in lines if line["kind"] == "event"]

    def epochs_of(what: str) -> list[int]:
        return [event["epoch"] for event in events if event["what"] == what]

    # Early stopping: behind the second noise there is no rollback left, and nothing gets better any more.
    (last,) = epochs_of("early_stopping")
    assert 18 <= last <= 21
    assert list(epochs) == list(range(last + 1))
    assert trainer.current_epoch == last + 1
    # Clipping.
    assert max(steps) <= 1.0 + 1e-4
    assert all(line["monitors"]["gradient_norm"] > 0 for line in epochs.values())
    # Conflict meter, and topology.
    assert [epoch for epoch, line in epochs.items() if "conflict" in line] == list(range(0, last + 1, 3))
    assert all(0 <= line["monitors"]["topology_error"] <= 1 for line in epochs.values())
    # Plateau escape: the learning rate first, which decays, then the loss weights, then the momentum.
    plateaus = [event for event in events if event["what"] == "plateau"]
    assert [event["why"].split(": ")[1].split(" as ")[0] for event in plateaus][:2] == ["learning_rate", "loss_weights"]
    boosted = plateaus[0]["epoch"]
    assert epochs[boosted + 1]["lr_multiplier"] == plateaus[0]["to"] >= 2
    multipliers = [epochs[epoch]["lr_multiplier"] for epoch in range(boosted + 1, boosted + 6)]
    assert multipliers == sorted(multipliers, reverse=True)
    assert multipliers[-1] == 1
    weights = plateaus[1]
    assert epochs[weights["epoch"] + 1]["weights"] == pytest.approx(weights["to"])
    if len(plateaus) > 2:
        assert "momentum" in plateaus[2]["why"]
        assert momentum[plateaus[2]["epoch"] + 1] == 0
    # Learning rate: the plateau schedule reduces it, averaging has one of its own.
    reduced = epochs_of("lr_reduced")[0]
    assert epochs[reduced + 1]["lr"] / epochs[reduced + 1]["lr_multiplier"] == pytest.approx(0.005)
    assert epochs[17]["lr"] / epochs[17]["lr_multiplier"] == pytest.approx(1e-3)
    # Noise that ruins the network, and the rollback that saves it.
    assert epochs_of("noise") == [13, 18]
    assert not torch.equal(seen["start"][13], seen["end"][12])
    assert epochs_of("rollback") == [13]
    assert epochs_of("rollback_refused") == [18]
    rollback = next(event for event in events if event["what"] == "rollback")
    best = int(rollback["why"].split("epoch ")[-1])
    assert rollback["from"] > 1.5 * rollback["to"]
    assert torch.equal(seen["end"][13], seen["trained"][best])
    assert not torch.equal(seen["trained"][13], seen["trained"][best])
    assert momentum[14] == 0
    # Averaging of every second epoch; what was in it at 12 came back with the weights of the best epoch.
    assert epochs_of("averaging") == [12]
    assert epochs_of("averaged") == [last]
    averaged = [epoch for epoch in range(12, last + 1, 2) if epoch > 13 or epoch <= best]
    expected = torch.stack([seen["trained"][epoch] for epoch in averaged]).mean(0)
    torch.testing.assert_close(first(trainer), expected)

    folder = Path(trainer.output_folder)
    final = torch.load(folder / "checkpoint_final.pth", weights_only=True)
    name = next(iter(final["network_weights"]))
    torch.testing.assert_close(final["network_weights"][name], expected)
    assert torch.equal(final["nnunet_topo"]["average"]["raw_weights"][name], seen["end"][last])
    assert final["nnunet_topo"]["kept_weights"] == {}
    best_topo = torch.load(folder / "checkpoint_best_topo.pth", weights_only=True)
    errors = {epoch: line["monitors"]["topology_error"] for epoch, line in epochs.items()}
    assert best_topo["current_epoch"] - 1 == min(errors, key=errors.__getitem__)
    assert torch.equal(best_topo["network_weights"][name], seen["trained"][best_topo["current_epoch"] - 1])
    assert len(drawn) == last + 2  # every epoch, and the average at the end

    # Gone on with from the middle, before and behind the rollback, it ends the same: best weights, average and all.
    journal = trainer.journal.path.read_bytes()
    for epoch in RESUMED_BEHIND:
        trainer.journal.path.write_bytes(journal)
        resumed = make_trainer(nnUNetTrainerTopo, "ignore", recipe=RECIPE, continue_training=True)
        resumed.load_checkpoint(str(tmp_path / f"{epoch}.pth"))
        resumed.run_training()
        same = [line for line in resumed.journal.lines() if line.get("what") != "resume"]
        assert [without_duration(line) for line in same] == [without_duration(line) for line in lines]
        again = torch.load(folder / "checkpoint_final.pth", weights_only=True)
        assert all(torch.equal(value, final["network_weights"][key]) for key, value in again["network_weights"].items())

    # Under --c it stays stopped, and what it leaves is the same.
    again = make_trainer(nnUNetTrainerTopo, "ignore", recipe=RECIPE, continue_training=True)
    again.load_checkpoint(str(folder / "checkpoint_final.pth"))
    monkeypatch.setattr(again, "train_step", lambda _: pytest.fail("a stopped run went on"))
    again.run_training()
    assert again.journal.lines() == resumed.journal.lines()
    rewritten = torch.load(folder / "checkpoint_final.pth", weights_only=True)
    assert torch.equal(rewritten["network_weights"][name], final["network_weights"][name])
    assert torch.equal(rewritten["nnunet_topo"]["average"]["raw_weights"][name], seen["end"][last])
