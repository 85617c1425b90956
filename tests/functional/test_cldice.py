import pytest
import torch

from nnunet_topo.functional.cldice import sharpen, soft_cldice_loss


def tube(size=40, radius=2.5, gap=()):
    axis = torch.arange(size) - size / 2 + 0.5
    disc = axis[:, None] ** 2 + axis[None] ** 2 <= radius**2
    mask = disc[None].repeat(size, 1, 1)
    mask[list(gap)] = False
    return mask[None, None]


def blurred(mask, inside=0.95, outside=0.05):
    return torch.where(mask, inside, outside)


def test_perfect_missed_and_disjoint():
    mask = tube()
    assert soft_cldice_loss(mask.float(), mask) == pytest.approx(0, abs=1e-6)
    assert soft_cldice_loss(torch.zeros(mask.shape), mask) == pytest.approx(1, abs=1e-5)
    assert soft_cldice_loss(mask.roll(15, dims=3).float(), mask) == pytest.approx(1, abs=1e-5)


def test_constant_inside_gives_that_sensitivity():
    mask = tube()
    loss = soft_cldice_loss(torch.where(mask, 0.6, 0.0), mask)
    assert loss == pytest.approx(1 - 2 * 0.6 / 1.6, abs=1e-6)


def test_gradient_in_a_gap_is_there_and_asks_for_more():
    mask, broken = tube(), tube(gap=range(18, 22))
    p = blurred(broken).requires_grad_()
    soft_cldice_loss(p, mask).backward()
    gap = p.grad[0, 0, 18:22, 19:21, 19:21]  # around the axis
    assert (gap < -1e-5).all()


def test_filling_a_gap_lowers_the_loss_at_every_step_and_an_island_raises_it():
    mask = tube()
    losses = [soft_cldice_loss(blurred(tube(gap=range(18, 18 + n))), mask).item() for n in (4, 3, 2, 1, 0)]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 5
    island = mask.clone()
    island[0, 0, 5:9, 5:9, 5:9] = True
    assert soft_cldice_loss(blurred(island), mask) > losses[-1] + 0.005


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
def test_faint_background_noise_does_not_drown_a_perfect_mask(noise):
    mask = tube(64)
    p = torch.where(mask, 0.95, torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)) * noise)
    assert soft_cldice_loss(p, mask) < 0.1
    assert soft_cldice_loss(p, mask, sharpness=1.0) > 0.5  # what the remedy is for


def test_cut_through_a_structure_thicker_than_the_iterations_is_seen():
    mask, broken = tube(radius=7), tube(radius=7, gap=range(18, 22))
    assert soft_cldice_loss(broken.float(), mask, iterations=3) > 0.03


def test_faint_prediction_of_a_full_patch_costs_and_has_a_gradient():
    mask = torch.ones(1, 1, 16, 16, 16, dtype=torch.bool)
    p = torch.full(mask.shape, 0.2, requires_grad=True)
    loss = soft_cldice_loss(p, mask, iterations=3)
    loss.backward()
    assert loss.item() == pytest.approx(1 - 2 * 0.2 / 1.2, abs=1e-5)
    assert p.grad.min() < 0


def test_each_structure_has_its_own_ratio():
    mask = torch.zeros(1, 2, 24, 24, 24, dtype=torch.bool)
    mask[0, 0, :, ::6, ::6] = True  # many rods, found
    mask[0, 1, 3, 3, :] = True  # one rod, missed
    p = mask.float()
    p[:, 1] = 0
    assert soft_cldice_loss(p, mask) == pytest.approx(0.5, abs=1e-5)


def test_hard_limit_is_the_metric_of_the_mask():
    torch.manual_seed(0)
    mask = tube(24)
    logits = 3 * torch.randn(mask.shape)
    soft = soft_cldice_loss((50 * logits.sign() * logits.abs().clamp_min(1)).sigmoid(), mask)
    assert soft == pytest.approx(soft_cldice_loss((logits > 0).float(), mask).item(), abs=1e-5)


def test_sharpen():
    p = torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(sharpen(p, 4.0)[1:4], (4 * p[1:4].logit()).sigmoid())
    assert sharpen(p, 4.0)[[0, 4]].tolist() == [0, 1]
    assert sharpen(p, 1) is p
    (gradient,) = torch.autograd.grad(sharpen(p, 4.0).sum(), p)
    assert gradient.isfinite().all()


def test_bytes_kept_for_backward():
    p = torch.rand(1, 1, 12, 12, 12, requires_grad=True)

    def kept(iterations):
        seen = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: seen.setdefault(t.untyped_storage().data_ptr(), t) if t.numel() >= p.numel() else t, lambda t: t
        ):
            soft_cldice_loss(p, p > 0.7, iterations=iterations)
        return sum(t.untyped_storage().nbytes() for t in seen.values()) / p.numel()

    assert kept(3) == kept(12)
    assert kept(3) <= 60
