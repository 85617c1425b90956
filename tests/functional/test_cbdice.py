import pytest
import torch

from nnunet_topo.functional.cbdice import soft_cbdice_loss
from nnunet_topo.functional.skeleton import soft_depth, soft_skeleton


def tube(radius, size=24):
    axis = torch.arange(size) - size / 2 + 0.5
    disc = axis[:, None] ** 2 + axis[None] ** 2 <= radius**2
    return disc[None].repeat(size, 1, 1)[None, None]


def reference(p, y, iterations):
    """Voxel by voxel, for a prediction that needs no sharpening."""
    skeletons = [soft_skeleton(x, iterations) for x in (p, y)]
    depths = [soft_depth(x, iterations) for x in (p, y)]
    shares = []
    for own, other in ((0, 1), (1, 0)):
        weighted = total = 0.0
        for s, d, e in zip(*(x.flatten().tolist() for x in (skeletons[own], depths[own], depths[other])), strict=True):
            weighted += s * min(1.0, e / d) if d else 0.0
            total += s
        shares.append(weighted / total)
    return 1 - 2 * shares[0] * shares[1] / (shares[0] + shares[1])


def test_equals_the_slow_form():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(1, 1, 8, 7, 6, generator=generator) ** 0.3
    mask = torch.rand(p.shape, generator=generator) > 0.1
    ours = soft_cbdice_loss(p, mask, iterations=3, sharpness=1.0, smooth=1e-9)
    assert ours.item() == pytest.approx(reference(p, mask.float(), 3), abs=1e-5)


def test_perfect_missed_and_disjoint():
    mask = tube(3.5)
    assert soft_cbdice_loss(mask.float(), mask) == pytest.approx(0, abs=1e-6)
    assert soft_cbdice_loss(torch.zeros(mask.shape), mask) == pytest.approx(1, abs=1e-5)
    thin = tube(1.0)
    assert soft_cbdice_loss(thin.roll(8, dims=3).float(), thin) == pytest.approx(1, abs=1e-5)


def test_a_wrong_radius_costs_although_the_centreline_is_right():
    """What clDice cannot see."""
    from nnunet_topo.functional.cldice import soft_cldice_loss

    mask = tube(5.5)
    for radius in (2.5, 9.5):
        assert soft_cbdice_loss(tube(radius).float(), mask) > 0.15
    assert soft_cldice_loss(tube(2.5).float(), mask) < 0.05


def test_thin_and_thick_vessels_count_alike():
    both = torch.zeros(1, 1, 24, 60, 24, dtype=torch.bool)
    both[:, :, :, 4:28], both[:, :, :, 32:56] = tube(8.5), tube(1.5)
    without_thin, without_thick = both.clone(), both.clone()
    without_thin[:, :, :, 32:], without_thick[:, :, :, :32] = False, False
    thin_lost, thick_lost = (soft_cbdice_loss(m.float(), both).item() for m in (without_thin, without_thick))
    assert 0.15 < thin_lost < 0.6
    assert 0.15 < thick_lost < 0.6


def test_tiny_probabilities_have_a_finite_gradient():
    mask = tube(2.5)
    for p in (0.0, 1e-38, 1e-30, 1e-8):
        for sharpness in (1.0, 4.0):
            prediction = torch.full(mask.shape, p, requires_grad=True)
            soft_cbdice_loss(prediction, mask, sharpness=sharpness).backward()
            assert prediction.grad.isfinite().all()
