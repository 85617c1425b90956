"""Agreement with public implementations where those are right."""

import importlib
import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from nnunet_topo.errors import ConfigError
from nnunet_topo.functional.betti_engine import betti_engine
from nnunet_topo.functional.betti_matching import betti_matching_loss
from nnunet_topo.functional.cldice import soft_cldice_loss
from nnunet_topo.functional.skeleton import soft_skeleton
from nnunet_topo.metrics.surface import surface_dice, surface_errors


@pytest.fixture
def topolosses_cldice(monkeypatch):
    """Its module of clDice; the package's own start would import torchvision, gudhi, POT and opencv."""
    found = importlib.util.find_spec("topolosses")
    if found is None:
        pytest.skip("topolosses is not installed")
    for name in ("topolosses", "topolosses.losses"):
        package = ModuleType(name)
        package.__path__ = [found.submodule_search_locations[0] + name.removeprefix("topolosses").replace(".", "/")]
        monkeypatch.setitem(sys.modules, name, package)
    yield importlib.import_module("topolosses.losses.cldice.src.cldice_loss")
    for name in [name for name in sys.modules if name.startswith("topolosses.losses.cldice")]:
        del sys.modules[name]


def image_and_mask(shape):
    """A prediction and labels in a margin of zeros, in which it does not matter what a peer takes the outside for."""
    generator = torch.Generator().manual_seed(0)
    inner = torch.rand(1, 1, *shape, generator=generator, dtype=torch.double)
    mask = inner + 0.5 * torch.rand(inner.shape, generator=generator) > 0.6
    margin = (2,) * 2 * len(shape)
    return torch.nn.functional.pad(inner, margin), torch.nn.functional.pad(mask, margin)


@pytest.mark.parametrize("shape", [(21, 16), (12, 11, 10)])
def test_soft_skeleton_and_cldice_are_those_of_monai(shape):
    from monai.losses import cldice as monai

    p, mask = image_and_mask(shape)
    # As many iterations as leave nothing, so that nothing remains for ours to add.
    torch.testing.assert_close(soft_skeleton(p, 12), monai.soft_skel(p, 12), rtol=0, atol=1e-12)
    theirs = monai.SoftclDiceLoss(iter_=12, smooth=1e-12)(p, mask.double())
    ours = soft_cldice_loss(p, mask, iterations=12, smooth=1.0, sharpness=1.0)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-9)


def test_soft_skeleton_and_cldice_are_those_of_topolosses_in_images(topolosses_cldice):
    p, mask = image_and_mask((21, 16))
    torch.testing.assert_close(soft_skeleton(p, 12), topolosses_cldice.soft_skel(p, 12), rtol=0, atol=1e-12)
    peer = topolosses_cldice.CLDiceLoss(iter_=12, smooth=1.0, include_background=True, use_base_loss=False, alpha=1)
    ours = soft_cldice_loss(p, mask, iterations=12, smooth=1.0, sharpness=1.0)
    assert ours.item() == pytest.approx(peer(p, mask.double()).item(), abs=1e-6)  # it computes in float32


def test_betti_matching_is_that_of_the_engine_but_for_the_oldest_component():
    try:
        engine = betti_engine()
    except ConfigError:
        pytest.skip("the engine is not installed")
    labels = torch.zeros(5, 9)
    labels[2, 1:8] = 1
    p = 0.9 * labels
    p[2, 4] = 0.3
    p = p.double().requires_grad_()
    # The peer: the sum of squares over what is not matched, without the oldest component, in sublevel sets of 1 - p.
    matching = engine.compute_matching([1 - p.detach().numpy()], [1 - labels.double().numpy()])[0]
    birth, death = (
        p[tuple(np.concatenate(getattr(matching, f"input1_unmatched_{end}_coordinates")).T)]
        for end in ("birth", "death")
    )
    peer = (birth - death).square().sum()
    (its_gradient,) = torch.autograd.grad(peer, p)
    assert peer.item() == pytest.approx(0.36, abs=1e-6)
    assert its_gradient[2, 4].item() == pytest.approx(-1.2, abs=1e-6)
    assert sorted(its_gradient[its_gradient != 0].tolist()) == pytest.approx([-1.2, 1.2], abs=1e-6)

    ours = betti_matching_loss(p[None, None], labels[None, None] > 0, power=2.0)
    (gradient,) = torch.autograd.grad(ours, p)
    oldest = (1 - 0.9) ** 2  # matched with that of the labels, which is born at 1
    assert ours.item() == pytest.approx((0.36 + oldest) / (1 + 0.36), abs=1e-6)
    assert gradient[2, 4].item() == pytest.approx(-1.2 * (1 - oldest) / (1 + 0.36) ** 2, abs=1e-6)


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_surfaces_of_a_cube_and_the_same_cube_moved_are_those_of_monai_and_as_far_apart_as_it_moved(shift):
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    cube = np.zeros((14, 13, 12), bool)
    cube[2:10, 2:9, 3:9] = True
    moved = np.roll(cube, shift, 0)
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (moved, cube)]
    hd95 = surface_errors(moved, cube, spacing_mm=(1, 1, 1)).hd95
    assert hd95 == compute_hausdorff_distance(*pair, percentile=95, include_background=True).item() == shift
    for tolerance in range(shift + 1):
        theirs = compute_surface_dice(
            *pair, [float(tolerance)], include_background=True, spacing=(1, 1, 1), use_subvoxels=True
        )
        ours = surface_dice(moved, cube, spacing_mm=(1, 1, 1), tolerance_mm=tolerance)
        assert ours == pytest.approx(theirs.item(), abs=1e-6)
        assert (ours == 1) == (tolerance == shift)
