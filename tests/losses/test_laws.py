"""Laws that the terms obey: what permutations change, values in closed form, and that mending an error pays."""

import itertools
import math

import pytest
import torch

from nnunet_topo.losses import TERMS, make_term

LEVELS = ("variance", "entropy")  # of the prediction as a whole
MENDS_GAPS = [name for name in TERMS if name not in (*LEVELS, "separation")]
IN_STEPS = ("scnp", "betti_matching")  # some voxels of a gap change nothing until others are filled too
SEES_NO_ISLAND = ("boundary", "connectivity")


def tube(radius, *, gap=0):
    """Labels (1, 1, 14, 14, 14) of a tube along the first axis."""
    axis = torch.arange(14) - 6.5
    mask = (axis[:, None] ** 2 + axis[None] ** 2 <= radius**2)[None].repeat(14, 1, 1)
    mask[5 : 5 + gap] = False
    return mask[None, None].to(torch.int16)


def logits_of(mask, confidence):
    """One channel that predicts the mask with that logit."""
    return torch.where(mask > 0, confidence, -confidence).float()


def value_and_gradient(name, logits, labels, **settings):
    logits = logits.detach().clone().requires_grad_()
    value = make_term(name, **settings)(logits, labels)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@pytest.mark.parametrize("kind", ["three", "regions"])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_samples_and_classes_in_another_order_change_nothing(term, kind, batch_dice, make_case):
    name, parameters = term
    logits, labels, common = make_case(kind, batch=3)
    common |= parameters | {"batch_dice": batch_dice}
    weighted = name in ("ce", "focal") and kind == "three"
    weights = {"class_weights": [1.0, 2.0, 5.0]} if weighted else {}
    value, gradient = value_and_gradient(name, logits, labels, **common, **weights)

    order = [2, 0, 1]
    permuted, its_gradient = value_and_gradient(name, logits[order], labels[order], **common, **weights)
    torch.testing.assert_close(permuted, value, rtol=0, atol=1e-6)
    torch.testing.assert_close(its_gradient, gradient[order], rtol=1e-5, atol=1e-7)

    channels = [0, 2, 1] if kind == "three" else [1, 0]
    if kind == "three":
        swapped = torch.where(labels == 1, 2, torch.where(labels == 2, 1, labels))
    else:
        swapped = labels[:, [*channels, 2]]
    weights = {"class_weights": [1.0, 5.0, 2.0]} if weighted else {}
    permuted, its_gradient = value_and_gradient(name, logits[:, channels], swapped, **common, **weights)
    torch.testing.assert_close(permuted, value, rtol=0, atol=1e-6)
    torch.testing.assert_close(its_gradient, gradient[:, channels], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in TERMS if name != "entropy"])
def test_the_labels_themselves_are_the_minimum(name):
    labels = tube(2.5)
    perfect = make_term(name)(logits_of(labels, 60.0), labels)
    assert perfect == pytest.approx(0, abs=1e-5)
    for seed in range(3):
        noise = 3 * torch.randn(labels.shape, generator=torch.Generator().manual_seed(seed))
        assert make_term(name)(noise, labels) >= perfect


SHARE = 0.6
BY_HAND = {
    "ce": -math.log(SHARE) / 14**2 * 4,
    "dice": 1 - 2 * SHARE / (1 + SHARE),
    "tversky": 1 - SHARE / (SHARE + 0.7 * (1 - SHARE)),
    "cldice": 1 - 2 * SHARE / (1 + SHARE),
    "skeleton_recall": 1 - 2 * SHARE / (1 + SHARE),
    "medial_surface_recall": 1 - 2 * SHARE / (1 + SHARE),
    "hausdorff": 1 - 2 * SHARE / (1 + SHARE**2),
    "variance": 1 - SHARE**2,
    "betti_matching": (1 - SHARE) ** 2,
}


@pytest.mark.parametrize("name", [name for name in BY_HAND if name in TERMS])
def test_a_constant_inside_and_zero_outside_by_hand(name):
    # The tube is 2 x 2 voxels thick: its skeleton is all of it, and all its voxels are as far from the background.
    labels = tube(0.8)
    logits = torch.where(labels > 0, torch.tensor(SHARE).logit(), -60.0)
    assert make_term(name)(logits, labels).item() == pytest.approx(BY_HAND[name], abs=1e-5)


# A layer of a thick tube that is filled in part has a smaller radius than it should: cbdice falls layer by layer only.
@pytest.mark.parametrize(("name", "radius"), sorted({*itertools.product(MENDS_GAPS, (0.8, 2.5))} - {("cbdice", 2.5)}))
def test_filling_a_gap_voxel_by_voxel_never_costs_and_an_island_does(name, radius):
    labels, broken, filled = tube(radius), tube(radius, gap=2), tube(radius, gap=2)
    term = make_term(name)
    gap = (labels == 1) & (broken == 0)
    values = [term(logits_of(filled, 2.0), labels).item()]
    for voxel in gap.nonzero().tolist():
        filled[tuple(voxel)] = 1
        values.append(term(logits_of(filled, 2.0), labels).item())
    assert all(later <= earlier + 1e-7 for earlier, later in itertools.pairwise(values))
    assert values[-1] < values[0] - 1e-4
    if radius < 1 and name not in IN_STEPS:
        assert all(later < earlier for earlier, later in itertools.pairwise(values))
        _, gradient = value_and_gradient(name, logits_of(broken, 2.0), labels)
        assert (gradient[gap] < 0).all()
    filled[0, 0, 1:4, 1:4, 1:4] = 1
    assert name in SEES_NO_ISLAND or term(logits_of(filled, 2.0), labels) > values[-1] + 1e-3
