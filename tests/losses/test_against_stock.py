"""ce and dice against the very losses that stock nnU-Net uses."""

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from nnunet_topo.losses import make_term


def stock_loss(kind, ignore_label, batch_dice, *, ce, dice):
    dice_settings = {"batch_dice": batch_dice, "smooth": 1e-5, "ddp": False}
    weights = {"weight_ce": ce, "weight_dice": dice}
    if kind == "regions":
        return DC_and_BCE_loss(
            {},
            {**dice_settings, "do_bg": True},
            **weights,
            use_ignore_label=ignore_label is not None,
            dice_class=MemoryEfficientSoftDiceLoss,
        )
    return DC_and_CE_loss(
        {**dice_settings, "do_bg": False},
        {},
        **weights,
        ignore_label=ignore_label,
        dice_class=MemoryEfficientSoftDiceLoss,
    )


@pytest.mark.parametrize("kind", ["two", "three", "regions"])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("shape", [(5, 7, 9), (11, 8)])
@pytest.mark.parametrize("empty", [False, True])
def test_dice_is_stock_dice_plus_one(kind, ignore, batch_dice, shape, empty, make_case):
    logits, labels, common = make_case(kind, shape=shape, ignore=ignore)
    if empty:  # the smoothing decides
        labels = torch.zeros_like(labels)
        logits = (
            (10 * logits - 200)
            if kind == "regions"
            else logits + 200 * (torch.arange(logits.shape[1]) == 0).view(1, -1, *[1] * len(shape))
        )
    logits.requires_grad_()
    ours = make_term("dice", **common, batch_dice=batch_dice)(logits, labels)
    theirs = stock_loss(kind, common["ignore_label"], batch_dice, ce=0, dice=1)(logits, labels) + 1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(ours, logits)[0], torch.autograd.grad(theirs, logits)[0], rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("kind", ["two", "three", "regions"])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("shape", [(5, 7, 9), (11, 8)])
def test_ce_is_stock_ce(kind, ignore, shape, make_case):
    logits, labels, common = make_case(kind, shape=shape, ignore=ignore)
    logits.requires_grad_()
    ours = make_term("ce", **common)(logits, labels)
    theirs = stock_loss(kind, common["ignore_label"], False, ce=1, dice=0)(logits, labels)
    if kind == "regions":
        # Stock evaluates its dice at weight 0, and with an ignore label divides by voxels instead of voxels x regions.
        theirs = theirs / (2 if ignore else 1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(ours, logits)[0], torch.autograd.grad(theirs, logits)[0])


def test_ce_of_one_channel_is_torch_bce_over_the_valid_voxels(make_case):
    logits, labels, common = make_case("binary")
    valid = labels != common["ignore_label"]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[valid], labels[valid].float())
    torch.testing.assert_close(make_term("ce", **common)(logits, labels), expected)


def test_class_weights_of_ce_are_those_of_torch(make_case):
    logits, labels, common = make_case("three")
    weights = (0.5, 1.0, 4.0)
    expected = torch.nn.functional.cross_entropy(
        logits, labels[:, 0].long(), weight=torch.tensor(weights), ignore_index=common["ignore_label"]
    )
    torch.testing.assert_close(make_term("ce", **common, class_weights=weights)(logits, labels), expected)
