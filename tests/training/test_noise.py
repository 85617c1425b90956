"""Weight noise: relative to each tensor, seeded by occasion and name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from nnunet_topo.errors import ConfigError
from nnunet_topo.training.checkpoint import read_checkpoint
from nnunet_topo.training.noise import add_noise
from nnunet_topo.training.trainers import nnUNetTrainerTopo


def network() -> nn.Module:
    torch.manual_seed(0)
    modules = {"encoder": nn.Conv2d(3, 40, 5), "decoder": nn.Conv2d(40, 30, 5), "head": nn.Conv2d(30, 2, 1)}
    built = nn.Sequential()
    for name, module in modules.items():
        built.add_module(name, module)
    with torch.no_grad():
        built.decoder.weight.mul_(100)
        built.head.bias.zero_()
    return built


def changes(**settings: object) -> dict[str, torch.Tensor]:
    noisy, before = network(), network().state_dict()
    add_noise(noisy, **{"std": 1e-2, "seed": 5, "patterns": "all", **settings})
    return {name: value - before[name] for name, value in noisy.state_dict().items()}


def test_relative_size_is_the_same_for_small_and_large_tensors() -> None:
    before = network().state_dict()
    for name, change in changes().items():
        if name.endswith("weight") and change.numel() > 1000:
            assert float(change.norm() / before[name].norm()) == pytest.approx(1e-2, rel=0.05)
            assert float(change.std()) == pytest.approx(
                1e-2 * float(before[name].norm()) / change.numel() ** 0.5, rel=0.05
            )
            assert abs(float(change.mean())) < 4 * float(change.std()) / change.numel() ** 0.5


def test_tensor_of_zeros_stays() -> None:
    assert not changes()["head.bias"].any()


def test_only_what_matches_and_trains_changes() -> None:
    noisy, before = network(), network().state_dict()
    noisy.decoder.bias.requires_grad_(False)
    relative = add_noise(noisy, 1e-2, 5, ("decoder.*", "head.weight"))
    changed = {name for name, value in noisy.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(relative) == {"decoder.weight", "head.weight"}
    assert all(5e-3 < value < 2e-2 for value in relative.values())


def test_same_seed_same_noise_whatever_the_global_state() -> None:
    torch.manual_seed(1)
    first = changes()
    torch.manual_seed(2)
    second = changes()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_global_random_state_is_left_alone() -> None:
    noisy = network()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    add_noise(noisy, 1e-2, 5, "all")
    assert torch.equal(torch.get_rng_state(), state)


def test_seeds_and_tensors_get_noise_of_their_own() -> None:
    first, second = changes(seed=5)["encoder.weight"], changes(seed=6)["encoder.weight"]
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.1
    built = nn.Sequential(nn.Conv2d(8, 8, 5, bias=False), nn.Conv2d(8, 8, 5, bias=False))
    with torch.no_grad():
        built[1].weight.copy_(built[0].weight)
    add_noise(built, 1e-2, 5, "all")
    assert not torch.equal(built[0].weight, built[1].weight)


def test_another_process_draws_the_same() -> None:
    """hash() of a name differs from process to process."""
    script = (
        "import torch; from torch import nn; from nnunet_topo.training.noise import add_noise\n"
        "net = nn.Linear(2, 1); nn.init.ones_(net.weight); nn.init.ones_(net.bias)\n"
        "add_noise(net, 1e-2, 5, 'all'); print(repr([*net.weight.tolist()[0], *net.bias.tolist()]))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def test_pattern_without_a_parameter_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"noise\.parameters.*'decodr\.\*'.*Did you mean 'decoder"):
        changes(patterns=("decodr.*",))


def test_noise_of_an_escape_comes_before_the_next_epoch_and_never_behind_the_last(make_trainer, tmp_path: Path) -> None:
    """What is saved as the best or the final weights is what was measured; a checkpoint in between keeps the debt."""
    recipe = {
        "name": "escaping",
        "epochs": 3,
        "iterations_per_epoch": 1,
        "validation_iterations": 1,
        "checkpoint_every": 1,
        "seed": 1,
        "phases": [{"from": 0, "weights": {"dice": 1.0}}],
        "monitor": {"patches": 1, "smoothing_epochs": 1},
        "plateau": {
            "patience": 1,
            "threshold": 100.0,
            "cooldown": 0,
            "evaluation_epochs": 1,
            "actions": ["noise"],
            "noise_std": 0.5,
        },
    }
    trainer = make_trainer(nnUNetTrainerTopo, recipe=recipe)
    weights: dict[str, torch.Tensor] = {}

    def noted(hook: str) -> None:
        original = getattr(trainer, hook)

        def run(*arguments):
            epoch = trainer.current_epoch
            weights[f"{hook} {epoch} before"] = parameters_to_vector(trainer.network.parameters()).detach().clone()
            result = original(*arguments)
            weights[f"{hook} {epoch} behind"] = parameters_to_vector(trainer.network.parameters()).detach().clone()
            if (hook, epoch) == ("on_epoch_end", 1):
                shutil.copy(Path(trainer.output_folder) / "checkpoint_latest.pth", tmp_path / "between.pth")
            return result

        setattr(trainer, hook, run)

    noted("on_epoch_end")
    noted("on_train_epoch_start")
    trainer.run_training()
    events = [(line["epoch"], line["what"]) for line in trainer.journal.lines() if line["kind"] == "event"]
    assert {(1, "plateau"), (2, "plateau")} <= set(events)
    for epoch in (1, 2):
        assert torch.equal(weights[f"on_epoch_end {epoch} before"], weights[f"on_epoch_end {epoch} behind"])
    noisy = weights["on_train_epoch_start 2 behind"]
    change = (noisy - weights["on_train_epoch_start 2 before"]).norm() / noisy.norm()
    assert 0.1 < change < 0.9
    final = read_checkpoint(Path(trainer.output_folder) / "checkpoint_final.pth")["network_weights"]
    names = [name for name, _ in trainer.network.named_parameters()]
    assert torch.equal(weights["on_epoch_end 2 before"], parameters_to_vector([final[name] for name in names]))

    resumed = make_trainer(nnUNetTrainerTopo, recipe=recipe, continue_training=True)
    resumed.load_checkpoint(read_checkpoint(tmp_path / "between.pth"))
    resumed.on_train_start()
    resumed.on_epoch_start()
    resumed.on_train_epoch_start()
    assert torch.equal(parameters_to_vector(resumed.network.parameters()), noisy)
