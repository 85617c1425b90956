"""Defects of public topology losses, second part: Betti matching, and what separates and connects."""

import pytest
import torch
from scipy.ndimage import label

from nnunet_topo.losses import TERMS, CompoundLoss, make_term
from nnunet_topo.metrics import betti_errors, betti_matching_error

betti = pytest.mark.skipif("betti_matching" not in TERMS, reason="its engine is not installed")


def rods(*starts, size=12, length=12):
    """Labels (1, 1, ...) of tubes 2 x 2 voxels thick."""
    labels = torch.zeros(1, 1, length, size, size, dtype=torch.int16)
    for start in starts:
        labels[0, 0, :, start : start + 2, 4:6] = 1
    return labels


def logits_of(mask, confidence=9.0):
    one = torch.where(mask > 0, confidence, -confidence)
    return torch.cat([-one / 2, one / 2], 1)


@betti
@pytest.mark.parametrize("starts", [(4,), (2, 7)])
def test_p18_an_empty_prediction_costs_whatever_the_number_of_objects(starts):
    # topolosses: 0.0 for one object, 1.0 for two: the oldest component of each is taken for matched.
    labels = rods(*starts)
    term = make_term("betti_matching")
    assert term(logits_of(torch.zeros_like(labels)), labels) > 0.9
    false = len(starts)  # a share below 1, so that there is a gradient: as if the labels had one object
    assert term(logits_of(labels), torch.zeros_like(labels)).item() == pytest.approx(false / (1 + false), abs=1e-3)
    assert term(logits_of(labels), labels) < 1e-6


def test_p18b_an_empty_prediction_is_not_one_component():
    # Topograph's metric adds 1 to the matched and unmatched features: error 0 for an empty mask against one object.
    one, none = rods(4)[0, 0].numpy() > 0, rods()[0, 0].numpy() > 0
    assert betti_errors(none, one) == betti_errors(one, none) == (1, 0, 0)
    assert betti_matching_error(none, one) == betti_matching_error(one, none) == 1
    assert betti_errors(none, none) == (0, 0, 0)


@betti
def test_p18c_the_value_does_not_grow_with_the_patch_or_with_noise():
    # topolosses: a sum, 11.7 for a noisy tube in 32^3 and 40.6 in 48^3.
    values = []
    for length in (12, 24):
        labels = rods(5, size=length, length=length)
        noise = torch.randn(labels.shape, generator=torch.Generator().manual_seed(0))
        values.append(make_term("betti_matching")(logits_of(labels, 3.0) + torch.cat([0 * noise, noise], 1), labels))
    assert all(0 <= value <= 1 for value in values)
    assert values[1] < 2 * values[0]


@betti
def test_p16_a_weight_of_one_drops_no_other_term():
    # topolosses: alpha from 0.999 to 1 takes the loss from 1.4492 to 0.8497, the base loss is gone.
    labels = rods(4)
    prediction = torch.randn(1, 2, *labels.shape[2:], generator=torch.Generator().manual_seed(0))
    loss = CompoundLoss({name: make_term(name) for name in ("dice", "betti_matching")}, scale_weights=None)
    totals = []
    for weight in (0.999, 1.0):
        loss.set_weights({"dice": 1.0, "betti_matching": weight})
        totals.append(loss(prediction, labels).item())
    assert totals[1] - totals[0] == pytest.approx(0.001 * loss.values["betti_matching"].item(), abs=1e-5)


def test_touching_sheets_merged_by_one_voxel_are_seen_where_dice_sees_nothing():
    """The open problem of the Vesuvius competition: one voxel between two sheets changes Dice in the fourth decimal."""
    labels = torch.zeros(1, 1, 9, 24, 24, dtype=torch.int16)
    labels[0, 0, 2:4], labels[0, 0, 5:7] = 1, 1
    merged = labels.clone()
    merged[0, 0, 4, 12, 12] = 1
    assert label(labels[0, 0])[1] == 2
    assert label(merged[0, 0])[1] == 1
    rise = {
        name: make_term(name)(logits_of(merged), labels) - make_term(name)(logits_of(labels), labels)
        for name in ("dice", "separation", "connectivity")
    }
    assert rise["dice"] < 1e-3
    assert rise["separation"] > 0.08
    assert rise["connectivity"] > 0.04


def test_ignored_voxels_join_no_components_and_are_no_barrier():
    labels = rods(2, 7)
    labels[0, 0, :, 4:7, 4:6] = 3  # what is straight between is unknown
    prediction = logits_of(torch.ones_like(labels))
    plain = make_term("separation")(prediction, rods(2, 7))
    masked = make_term("separation", ignore_label=3)(prediction, labels)
    assert plain > 0.9
    assert masked > 0.9  # past the unknown part the two are still kept apart
    labels[:] = torch.where(rods(2, 7) == 1, 1, 3)
    assert make_term("separation", ignore_label=3)(prediction, labels) == 0


@pytest.mark.parametrize("name", ["separation", "connectivity", "scnp"])
def test_perfect_is_nearly_zero_and_inverted_is_large(name):
    # topolosses' warping loss: 30.0 for a perfect prediction, IndexError for an inverted one.
    labels = rods(2, 7)
    assert make_term(name)(logits_of(labels), labels) < 1e-2
    assert make_term(name)(logits_of(1 - labels), labels) > 0.9
