import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from nnunet_topo.errors import ConfigError
from nnunet_topo.functional import betti_engine as engine_module
from nnunet_topo.functional import betti_matching as loss_module
from nnunet_topo.functional.betti_engine import betti_engine
from nnunet_topo.functional.betti_matching import betti_matching_loss

try:
    betti_engine()
except ConfigError:
    pytest.skip("the engine is not installed", allow_module_level=True)


def loss(p, y, **settings):
    return betti_matching_loss(p[None, None], y[None, None] > 0, **settings)


def bar():
    """A line of 7 pixels, and a prediction of 0.9 on it but for one pixel of 0.3."""
    y = torch.zeros(5, 9)
    y[2, 1:8] = 1
    p = 0.9 * y
    p[2, 4] = 0.3
    return p, y


def test_value_and_gradient_by_hand():
    p, y = bar()
    p.requires_grad_()
    value = loss(p, y, power=2.0)
    # One bar is matched (born at 0.9 instead of 1), the other lives from 0.9 to 0.3; the labels have one.
    assert value.item() == pytest.approx((0.1**2 + 0.6**2) / (1 + 0.6**2), abs=1e-6)
    (gradient,) = torch.autograd.grad(value, p)
    assert gradient[2, 4] < 0  # fill the gap
    assert (gradient != 0).sum() == 3
    assert loss(p, y).item() == pytest.approx((0.1**2 + 0.6**4) / (1 + 0.6**4), abs=1e-6)


def test_a_ring_and_a_shell():
    y = torch.zeros(7, 7)
    y[1:6, 1:6] = 1
    y[2:5, 2:5] = 0
    assert loss(y, y) == 0
    broken = y.clone()
    broken[1, 3] = 0
    assert loss(broken, y).item() == pytest.approx(1 / 2)  # of a component and a loop the loop is missed
    shell = torch.zeros(7, 7, 7)
    shell[1:6, 1:6, 1:6] = 1
    shell[2:5, 2:5, 2:5] = 0
    holed = shell.clone()
    holed[1, 3, 3] = 0
    assert loss(shell, shell) == 0
    assert loss(holed, shell).item() == pytest.approx(1 / 2)


@pytest.mark.parametrize("shape", [(9, 7), (7, 6, 5)])
@pytest.mark.parametrize("islands", [1, 2])
def test_false_features_have_a_gradient_where_the_labels_have_none(shape, islands):
    p = torch.full(shape, 0.01)
    spots = [(1,) * len(shape), (4,) * len(shape)][:islands]
    for spot in spots:
        p[spot] = 0.9
    p.requires_grad_()
    value = loss(p, torch.zeros(shape), power=2.0)
    false = 0.9**2 + (islands - 1) * 0.89**2  # the younger island dies in the background of 0.01
    assert value.item() == pytest.approx(false / (1 + false), abs=1e-5)
    (gradient,) = torch.autograd.grad(value, p)
    assert all(gradient[spot] > 0.1 for spot in spots)
    assert loss(torch.full(shape, 0.01), torch.zeros(shape)) < 1e-6  # faint noise


def test_place_counts_and_not_number_alone():
    _, y = bar()
    elsewhere = torch.zeros(5, 9)
    elsewhere[0, 1:8] = 1
    assert loss(elsewhere, y) == 1
    assert loss(y, y) == 0


def test_patches_are_seeded_and_lie_within():
    generator = torch.Generator().manual_seed(0)
    p, y = torch.rand(2, 1, 20, 30, generator=generator), torch.rand(2, 1, 20, 30, generator=generator) > 0.6
    first = betti_matching_loss(p, y, size=8, seed=1)
    assert betti_matching_loss(p, y, size=8, seed=1) == first
    assert betti_matching_loss(p, y, size=8, seed=2) != first
    p.requires_grad_()
    for patches in (1, 3):
        (gradient,) = torch.autograd.grad(betti_matching_loss(p, y, size=8, patches=patches), p)
        for sample in gradient[:, 0]:
            rows, columns = np.nonzero(sample.numpy())
            if patches == 1:
                assert np.ptp(rows) < 8
                assert np.ptp(columns) < 8
    whole = betti_matching_loss(p, y, size=30)
    assert betti_matching_loss(p, y, size=64, patches=5) == whole


def test_gradient_is_right():
    torch.manual_seed(0)
    for shape in ((2, 2, 4, 5), (1, 2, 3, 4, 3)):
        p, y = torch.rand(shape, dtype=torch.double, requires_grad=True), torch.rand(shape) > 0.6
        for batch_dice in (False, True):
            assert torch.autograd.gradcheck(
                lambda p, y=y, pooled=batch_dice: betti_matching_loss(p, y, batch_dice=pooled), p, atol=1e-6
            )


def test_a_perfect_mask_in_background_noise_is_nearly_perfect():
    torch.manual_seed(0)
    y = torch.zeros(16, 16, 16)
    y[:, 6:9, 6:9] = 1
    p = 0.9 * y + 0.1 * torch.rand(y.shape)
    assert loss(p, y) < 0.05
    assert loss(p, y, power=2.0) > 0.3  # the paper's


def test_a_budget_ends_the_patches_early(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    p, y = torch.rand(2, 1, 16, 16, 16, generator=generator), torch.rand(2, 1, 16, 16, 16, generator=generator) > 0.5
    whole = betti_matching_loss(p, y, size=6, patches=4).item()
    clock = itertools.count(step=0.010)  # every look at the clock is 10 ms later
    monkeypatch.setattr(loss_module, "perf_counter", lambda: next(clock))
    cut = [betti_matching_loss(p, y, size=6, patches=4, budget_ms=budget).item() for budget in (1, 25, 1000)]
    assert cut == pytest.approx([first_patches(p, y, 1), first_patches(p, y, 2), whole], abs=1e-6)
    assert len({round(value, 4) for value in cut}) == 3


def test_the_clock_starts_when_the_patches_are_there(monkeypatch):
    """On a GPU they come only once the network's forward pass is done, which is no part of the budget."""
    order, crops = [], loss_module._crops
    monkeypatch.setattr(loss_module, "_crops", lambda *tensors: order.append("patches") or crops(*tensors))
    monkeypatch.setattr(loss_module, "perf_counter", lambda: order.append("clock") or 0.0)
    betti_matching_loss(torch.rand(1, 1, 9, 9), torch.ones(1, 1, 9, 9) > 0, size=4, patches=2, budget_ms=1)
    assert order[:2] == ["patches", "clock"]
    assert order.count("patches") == 1


def first_patches(p, y, count):
    """Value over the first of four patches of each sample."""
    boxes = loss_module._boxes(p.shape[2:], len(p), 6, 4, 0)
    wrong, expected, false = loss_module._wrong_expected_false(loss_module._crops(p, y, boxes)[:count], 4.0)
    return (wrong / (expected.clamp_min(1.0) + false)).mean().item()


def test_engine_needs_neither_topolosses_nor_torchvision():
    code = (
        "import sys; from nnunet_topo.functional.betti_engine import betti_engine; "
        "print(betti_engine().compute_matching is not None, {'topolosses', 'torchvision', 'cv2'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True set()"


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_engine_is_shared_with_topolosses_whichever_comes_first(first):
    # Loaded twice in a process the extension refuses, and frees its memory twice at the end.
    ours = "from nnunet_topo.functional.betti_engine import betti_engine; own = betti_engine()"
    theirs = "from topolosses.losses.betti_matching.src import betti_matching as peer"
    lines = [ours, theirs] if first == "ours" else [theirs, ours]
    # Stands for the packages of topolosses, whose own __init__ files import torchvision, gudhi, POT and opencv.
    stand_in = (
        "import sys, types, importlib.metadata as m; from pathlib import Path\n"
        "path = Path(m.distribution('topolosses').locate_file('topolosses'))\n"
        "for name in ('', 'losses', 'betti_matching', 'src'):\n"
        "    path = path / name\n"
        "    full = '.'.join(path.parts[path.parts.index('site-packages') + 1:])\n"
        "    sys.modules[full] = types.ModuleType(full); sys.modules[full].__path__ = [str(path)]\n"
    )
    code = stand_in + "\n".join([*lines, "print(own is peer)"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_without_the_engine_it_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise engine_module.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(engine_module.importlib.metadata, "distribution", missing)
    monkeypatch.delitem(sys.modules, engine_module._MODULE, raising=False)
    with pytest.raises(ConfigError, match=r"pip install nnunet-topo\[betti\]"):
        betti_engine.__wrapped__()
