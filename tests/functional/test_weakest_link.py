import math

import pytest
import torch

from nnunet_topo.functional.weakest_link import weakest_link_loss


def test_one_wrong_voxel_among_a_thousand_is_seen():
    error = torch.full((1, 1, 10, 10, 10), 0.03)
    where = torch.ones_like(error, dtype=torch.bool)
    quiet = weakest_link_loss(error, where)
    error[0, 0, 4, 5, 6] = 1.0
    assert quiet < 1e-3
    assert weakest_link_loss(error, where) > 0.1


def test_value_by_hand():
    error = torch.tensor([[[[1.0, 0.5, 0.0, 1.0]]]])
    where = torch.tensor([[[[1, 1, 1, 0]]]])
    assert weakest_link_loss(error, where, power=1.0).item() == pytest.approx(math.log(2.5) / math.log(4))
    assert weakest_link_loss(error, where, power=2.0).item() == pytest.approx(math.log(2.25) / math.log(4))
    assert weakest_link_loss(torch.ones_like(error), where).item() == pytest.approx(1.0)


def test_samples_are_apart_or_together():
    error = torch.tensor([[[[1.0, 1.0]]], [[[0.0, 0.0]]]])
    where = torch.ones_like(error)
    assert weakest_link_loss(error, where).item() == pytest.approx(0.5)
    assert weakest_link_loss(error, where, batch_dice=True).item() == pytest.approx(math.log(3) / math.log(5))


def test_every_error_raises_it_whatever_the_others_are():
    """An error-weighted mean would fall when a small error is added to a large one."""
    torch.manual_seed(0)
    error = torch.rand(3, 2, 6, 7).requires_grad_()
    weakest_link_loss(error, torch.ones(3, 2, 6, 7)).backward()
    assert (error.grad > 0).all()


def test_what_is_wrong_for_certain_keeps_the_strongest_gradient():
    logits = torch.full((1, 1, 30), 3.0)[None].requires_grad_()
    broken = torch.ones(1, 1, 1, 30)
    broken[..., 12] = -1  # at logit -3, where it should be 3
    weakest_link_loss(torch.sigmoid(-logits * broken), torch.ones_like(broken)).backward()
    assert logits.grad.abs().argmax() == 12
    assert logits.grad.abs().max() > 0.02


def test_nothing_to_judge_is_perfect_with_zero_gradient():
    error = torch.rand(2, 3, 4, 4, requires_grad=True)
    loss = weakest_link_loss(error, torch.zeros(2, 3, 4, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not error.grad.any()


def test_gradient_is_right():
    torch.manual_seed(0)
    error = torch.rand(2, 1, 3, 4, dtype=torch.double, requires_grad=True)
    where = torch.rand(2, 1, 3, 4) > 0.4
    for batch_dice in (False, True):
        assert torch.autograd.gradcheck(
            lambda e, pooled=batch_dice: weakest_link_loss(e, where, batch_dice=pooled), error
        )
