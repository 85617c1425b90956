"""Averaged weights against a plain mean written out."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from nnunet_topo.recipe import recipe_from_mapping
from nnunet_topo.training.averaging import WeightAverage
from nnunet_topo.training.optimization import keep_frozen_statistics

BASE = {"name": "averaged", "epochs": 10, "phases": [{"from": 0, "weights": {"dice": 1.0}}]}


def average(**settings: object) -> WeightAverage:
    return WeightAverage(recipe_from_mapping({**BASE, "averaging": settings}, "test"))


def network(*, batch_norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4) if batch_norm else nn.InstanceNorm2d(4, affine=True)
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Conv2d(4, 2, 1))


def run(net: nn.Module, mean: WeightAverage, *, epochs: range, steps: int = 3) -> list[tuple[int, int, torch.Tensor]]:
    """Weights of the first layer after every step."""
    seen = []
    for epoch in epochs:
        for step in range(steps):
            with torch.no_grad():
                net[0].weight.add_(torch.randn(net[0].weight.shape, generator=torch.Generator().manual_seed(len(seen))))
            mean.after_step(net, epoch)
            seen.append((epoch, step, net[0].weight.detach().clone()))
        mean.after_epoch(net, epoch)
    return seen


def test_swa_is_the_mean_of_the_epochs_from_its_start() -> None:
    net, mean = network(), average(kind="swa", start=4, every=2)
    seen = run(net, mean, epochs=range(10))
    chosen = [weights for epoch, step, weights in seen if step == 2 and epoch in (4, 6, 8)]
    assert mean.count == 3
    trained = net[0].weight.detach().clone()
    assert torch.equal(trained, seen[-1][2])
    assert mean.finish(net, (), nullcontext())
    torch.testing.assert_close(net[0].weight, torch.stack(chosen).mean(0))
    assert torch.equal(mean.raw_weights["0.weight"], trained)


def test_ema_takes_every_step_in() -> None:
    net, mean = network(), average(kind="ema", start=0.5, decay=0.9)
    seen = run(net, mean, epochs=range(7))
    values = [weights for epoch, _, weights in seen if epoch >= 5]
    expected = values[0]
    for weights in values[1:]:
        expected = 0.9 * expected + 0.1 * weights
    assert mean.count == len(values) == 6
    mean.finish(net, (), nullcontext())
    torch.testing.assert_close(net[0].weight, expected)


@pytest.mark.parametrize("settings", [{"kind": "none"}, {"kind": "swa", "start": 8}, {"kind": "ema", "start": 8}])
def test_nothing_happens_before_it_started(settings: dict) -> None:
    net, mean = network(), average(**settings)
    run(net, mean, epochs=range(5))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert not mean.finish(net, (), nullcontext())
    assert mean.raw_weights is None
    assert mean.state_dict() == {}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("settings", [{"kind": "swa", "start": 1}, {"kind": "ema", "start": 1, "decay": 0.8}])
@pytest.mark.parametrize("interrupted", [0, 1, 2, 4])
def test_a_resumed_average_is_the_same(settings: dict, interrupted: int) -> None:
    nets, means = [network(), network()], [average(**settings), average(**settings)]
    run(nets[0], means[0], epochs=range(6))
    run(nets[1], means[1], epochs=range(interrupted))
    state = means[1].state_dict()
    resumed = average(**settings)
    resumed.load_state_dict(state, nets[1])
    whole = run(network(), average(kind="none"), epochs=range(6))
    for epoch in range(interrupted, 6):  # the trained weights of the uninterrupted run, step by step
        for step in range(3):
            with torch.no_grad():
                nets[1][0].weight.copy_(whole[3 * epoch + step][2])
            resumed.after_step(nets[1], epoch)
        resumed.after_epoch(nets[1], epoch)
    assert resumed.count == means[0].count
    for mean, net in ((means[0], nets[0]), (resumed, nets[1])):
        mean.finish(net, (), nullcontext())
    assert torch.equal(nets[0][0].weight, nets[1][0].weight)


def test_a_final_checkpoint_is_not_averaged_again() -> None:
    net, mean = network(), average(kind="swa", start=0)
    run(net, mean, epochs=range(3))
    mean.finish(net, (), nullcontext())
    again = average(kind="swa", start=0)
    again.load_state_dict(mean.state_dict(), net)
    before = net[0].weight.detach().clone()
    assert not again.finish(net, (), nullcontext())
    assert torch.equal(net[0].weight, before)
    assert torch.equal(again.state_dict()["raw_weights"]["0.weight"], mean.raw_weights["0.weight"])


@pytest.mark.parametrize("frozen", [False, True])
def test_batch_norm_statistics_are_those_of_the_averaged_network(frozen: bool) -> None:
    net, mean = network(batch_norm=True), average(kind="swa", start=0)
    if frozen:
        for parameter in net[1].parameters():
            parameter.requires_grad_(False)
        net[1].running_mean.fill_(7.0)
    run(net, mean, epochs=range(3))
    net.train()
    keep_frozen_statistics(net)
    batches = [torch.randn(2, 1, 9, 7, generator=torch.Generator().manual_seed(i)) * (i + 1) for i in range(4)]
    with torch.no_grad():
        net(10 * batches[0])  # statistics of the trained weights, about to be worthless
    mean.finish(net, iter(batches), nullcontext())
    with torch.no_grad():
        expected = torch.stack([net[0](batch).mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(net[1].running_mean, torch.full((4,), 7.0) if frozen else expected)
    assert net[1].momentum == 0.1
    assert net.training


def test_without_batch_norm_no_batch_is_drawn() -> None:
    def draw():
        raise AssertionError("a batch was drawn")
        yield

    net, mean = network(), average(kind="swa", start=0)
    run(net, mean, epochs=range(1))
    assert mean.finish(net, draw(), nullcontext())
