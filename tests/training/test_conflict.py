"""The conflict meter against gradients taken one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_topo.losses import make_term
from nnunet_topo.training.conflict import gradient_conflict
from nnunet_topo.training.patches import Patch

CPU = torch.device("cpu")


class Net(nn.Module):
    """One logit per class and voxel, and a second output as deep supervision would give."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        out = self.dropout(self.conv(x))
        return [out, out[..., ::2]]


def patches(count: int = 2) -> list[Patch]:
    rng = np.random.default_rng(0)
    made = []
    for index in range(count):
        labels = torch.from_numpy(rng.integers(0, 3, (1, 1, 5, 7, 6)).astype(np.int16))  # 2 is ignored
        data = torch.from_numpy(rng.normal(size=labels.shape).astype(np.float32))
        made.append(Patch(f"c{index}", data, labels, {}))
    return made


def terms(*names: str) -> dict:
    parameters = {"entropy": {"floor": 2.0}}  # nats: never reached, so there is always a gradient
    return {name: make_term(name, ignore_label=2, **parameters.get(name, {})) for name in names}


def slow_gradients(net: Net, used: dict, given: list[Patch]) -> dict[str, np.ndarray]:
    net.eval()
    gradients = {}
    for name, term in used.items():
        net.zero_grad()
        for patch in given:
            term(net(patch.data)[0], patch.labels).backward()
        gradients[name] = net.conv.weight.grad.flatten().numpy().copy(), net.conv.bias.grad.numpy().copy()
        net.zero_grad(set_to_none=True)
    return {name: np.concatenate(parts) for name, parts in gradients.items()}


def test_cosines_of_all_pairs() -> None:
    torch.manual_seed(0)
    net, used, given = Net(), terms("dice", "ce", "entropy"), patches()
    found = gradient_conflict(net, used, given, CPU)
    gradients = slow_gradients(net, used, given)
    assert list(found) == ["dice|ce", "dice|entropy", "ce|entropy"]
    for pair, cosine in found.items():
        a, b = (gradients[name] for name in pair.split("|"))
        assert cosine == pytest.approx(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), abs=1e-5)


def test_nothing_of_the_running_training_changes() -> None:
    torch.manual_seed(0)
    net = Net().train()
    net.conv.weight.grad = torch.ones_like(net.conv.weight)
    before, state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    with torch.no_grad():  # as nnU-Net's validation is
        assert gradient_conflict(net, terms("dice", "ce"), patches(), CPU)["dice|ce"] is not None
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(net.conv.weight.grad, torch.ones_like(net.conv.weight))
    assert net.conv.bias.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_a_term_without_a_gradient_gives_none() -> None:
    torch.manual_seed(0)
    net, given = Net(), patches(1)
    given[0].labels.fill_(2)
    assert gradient_conflict(net, terms("dice", "ce"), given, CPU) == {"dice|ce": None}
    assert gradient_conflict(net, terms("dice"), patches(), CPU) == {}
