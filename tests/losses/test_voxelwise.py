"""Closed forms and directions of the voxel-wise terms."""

import math

import pytest
import torch

from nnunet_topo.errors import ConfigError
from nnunet_topo.functional.boundary import band_weights
from nnunet_topo.losses import make_term

LABELS = torch.tensor([1, 1, 0, 0, 0, 0, 0, 0], dtype=torch.int16).view(1, 1, 2, 4)
RIGHT, WRONG = 0.8, 0.2


def logits_of(foreground):
    """One channel with these probabilities of foreground."""
    return torch.as_tensor(foreground).view(1, 1, 2, 4).logit()


MISSED = logits_of([WRONG] * 2 + [WRONG] * 6)  # background right, foreground missed
FALSE = logits_of([RIGHT] * 2 + [RIGHT] * 6)  # foreground right, background taken for foreground


def focal(p, gamma):
    return (1 - p) ** gamma * -math.log(p)


def test_focal_closed_form():
    value = make_term("focal", gamma=2.0)(MISSED, LABELS)
    assert value == pytest.approx((2 * focal(WRONG, 2) + 6 * focal(RIGHT, 2)) / 8, abs=1e-6)
    value = make_term("focal", gamma=0.5, alpha=0.9, class_weights=[2, 3])(MISSED, LABELS)
    expected = (2 * 0.9 * 3 * focal(WRONG, 0.5) + 6 * 0.1 * 2 * focal(RIGHT, 0.5)) / 8
    assert value == pytest.approx(expected, abs=1e-6)


def test_focal_without_gamma_and_alpha_is_ce(kind, make_case):
    logits, labels, common = make_case(kind)
    torch.testing.assert_close(
        make_term("focal", gamma=0, **common)(logits, labels), make_term("ce", **common)(logits, labels)
    )


def test_alpha_above_a_half_makes_missed_foreground_dearer_than_false_foreground():
    low, high = make_term("focal", alpha=0.25), make_term("focal", alpha=0.75)
    assert high(MISSED, LABELS) > low(MISSED, LABELS)
    assert high(FALSE, LABELS) < low(FALSE, LABELS)


@pytest.mark.parametrize("name", ["ce", "focal"])
def test_a_higher_class_weight_makes_missing_that_class_dearer(name):
    plain, foreground, background = (make_term(name, class_weights=w) for w in ([1, 1], [1, 4], [4, 1]))
    assert foreground(MISSED, LABELS) > plain(MISSED, LABELS)
    assert background(FALSE, LABELS) > plain(FALSE, LABELS)
    share = [term(MISSED, LABELS) / term(FALSE, LABELS) for term in (background, plain, foreground)]
    assert share[0] < share[1] < share[2]


@pytest.mark.parametrize("name", ["ce", "focal"])
def test_class_weights_are_by_true_class_of_several(name):
    labels = torch.tensor([[1, 2]]).view(1, 1, 1, 2)
    logits = torch.zeros(1, 3, 1, 2, requires_grad=True)
    value = make_term(name, class_weights=[1, 1, 9])(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    torch.testing.assert_close(gradient[0, 2, 0, 1], 9 * gradient[0, 1, 0, 0])


def test_another_number_of_class_weights_than_classes_is_refused():
    with pytest.raises(ConfigError, match="class_weights: expected 2 numbers, background first, got 3"):
        make_term("ce", class_weights=[1, 2, 3])(MISSED, LABELS)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_focal_of_a_perfect_prediction_has_a_finite_gradient(gamma):
    logits = torch.where(LABELS == 1, 200.0, -200.0).requires_grad_()
    make_term("focal", gamma=gamma)(logits, LABELS).backward()
    assert logits.grad.isfinite().all()


def checkerboard(low, high):
    return torch.tensor([low, high]).repeat(50).view(1, 1, 10, 10).clamp(1e-7, 1 - 1e-7).logit()


LEGACY = [
    (checkerboard(0.2, 0.8), 0.828),
    (checkerboard(0.5, 0.5), 1.000),
    (torch.full((1, 1, 10, 10), 80.0), 1.500),
    (torch.where(torch.arange(100).view(1, 1, 10, 10) < 50, 80.0, -80.0), 1.063),
    (torch.where(torch.arange(100).view(1, 1, 10, 10) < 5, 80.0, -80.0), 1.407),
]


@pytest.mark.parametrize(("logits", "expected"), LEGACY)
def test_legacy_variance(logits, expected):
    labels = torch.zeros(logits.shape)
    assert make_term("variance", form="legacy")(logits, labels) == pytest.approx(expected, abs=6e-4)
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    assert make_term("variance", form="legacy")(two, labels) == pytest.approx(expected, abs=6e-4)


def test_legacy_variance_has_its_minimum_at_a_fifth():
    values = [
        make_term("variance", form="legacy")(checkerboard(p, 1 - p), torch.zeros(1, 1, 10, 10))
        for p in (0.05, 0.1, 0.15, 0.25, 0.3, 0.4)
    ]
    assert min(values) > 0.828


@pytest.mark.parametrize("foreground", [1, 5, 50, 99])
def test_variance_hinge_is_satisfied_by_a_perfect_mask_only(foreground):
    labels = (torch.arange(100).view(1, 1, 10, 10) < foreground).float()
    term = make_term("variance")
    assert term((2 * labels - 1) * 80, labels) == pytest.approx(0, abs=1e-6)
    assert term(torch.zeros_like(labels), labels) == pytest.approx(1, abs=1e-6)
    half = torch.where(labels > 0, 0.75, 0.25).logit()
    assert term(half, labels) == pytest.approx(0.75, abs=1e-5)  # a quarter of the variance


def test_variance_hinge_of_one_voxel_in_a_large_patch():
    labels = torch.zeros(1, 1, 64, 64, 64)
    labels[0, 0, 5, 6, 7] = 1
    for mask in (labels, 1 - labels):
        assert make_term("variance")((2 * mask - 1) * 80, mask) == pytest.approx(0, abs=1e-4)


def test_entropy_closed_form():
    p = torch.tensor(0.02, dtype=torch.float64)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).item()
    logits = torch.full((1, 1, 3, 3), p.logit().item())
    labels = torch.zeros(1, 1, 3, 3)
    assert make_term("entropy")(logits, labels) == pytest.approx(0.3 - entropy, abs=1e-6)
    assert make_term("entropy")(torch.zeros(1, 1, 3, 3), labels) == 0
    assert make_term("entropy")(-80 * torch.ones(1, 1, 3, 3), labels) == pytest.approx(0.3, abs=1e-5)
    assert make_term("entropy", floor=2.0)(torch.zeros(1, 4, 3, 3), labels) == pytest.approx(2 - math.log(4), abs=1e-6)


def test_band_weights():
    distance = torch.tensor([-6.0, -5, -4, -3, -1, 1, 3, 4.5, 5, 60000])
    torch.testing.assert_close(band_weights(distance.half()), torch.tensor([0, 0, 0.5, 1, 1, 1, 1, 0.25, 0, 0]))


def test_boundary_closed_form():
    """A half-space 0..9 in a row of 20: only voxels within the band count."""
    labels = (torch.arange(20) < 10).view(1, 1, 20, 1).float()
    p = torch.full((20,), 0.5, dtype=torch.float64)
    p[7] = 0.9  # 3 from the nearest voxel outside: weight 1
    p[13] = 0.1  # 4 from the nearest voxel inside: weight 0.5
    p[2] = 0.001  # outside the band
    weights = torch.tensor([0.5, 1, 1, 1, 1, 1, 1, 0.5])
    costs = torch.tensor([math.log(2)] + [-math.log(0.9)] + [math.log(2)] * 5 + [-math.log(0.9)])
    value = make_term("boundary")(p.logit().float().view(1, 1, 20, 1), labels)
    assert value.item() == pytest.approx(((weights * costs).sum() / weights.sum()).item(), abs=1e-6)


def test_boundary_measures_in_smallest_voxel_edges():
    """Slices three edges apart: the neighbours of a slice have weight 1, the next ones lie outside the band."""
    labels = torch.zeros(1, 1, 9, 5, 5)
    labels[:, :, 4:] = 1
    logits = torch.zeros(1, 1, 9, 5, 5, requires_grad=True)
    make_term("boundary", spacing=(3, 1, 1))(logits, labels).backward()
    touched = (logits.grad != 0).any(-1).any(-1).flatten()
    assert touched.nonzero().flatten().tolist() == [3, 4]
    logits.grad = None
    make_term("boundary", spacing=(1, 3, 3))(logits, labels).backward()
    touched = (logits.grad != 0).any(-1).any(-1).flatten()
    assert touched.nonzero().flatten().tolist() == list(range(8))


def test_boundary_between_structure_and_ignored_voxels_is_none():
    labels = torch.full((1, 1, 8, 8), 2)
    labels[..., :4] = 1
    logits = torch.randn(1, 1, 8, 8, requires_grad=True)
    value = make_term("boundary", ignore_label=2)(logits, labels)
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


def test_legacy_connectivity_is_the_mean_over_valid_voxels_and_structures(make_case):
    logits, labels, common = make_case("three")
    valid = labels != common["ignore_label"]
    p = torch.where(valid, logits.softmax(1)[:, 1:], 0)
    y = torch.cat([labels == 1, labels == 2], 1).float()
    squares = (torch.nn.functional.max_pool3d(p, 5, 1, 2) - torch.nn.functional.max_pool3d(y, 5, 1, 2)) ** 2
    expected = squares[valid.expand_as(squares)].mean()
    torch.testing.assert_close(
        make_term("connectivity", form="legacy", kernel_size=5, **common)(logits, labels), expected
    )


def test_boundary_ignores_what_the_target_holds_in_ignored_voxels(make_case):
    logits, labels, common = make_case("two")
    valid = labels != common["ignore_label"]
    term = make_term("boundary", **common)
    distance = 4 * torch.rand(labels.shape)
    for garbage in (0.0, torch.nan):
        other = torch.where(valid, distance, garbage)
        assert torch.equal(
            term(logits, labels, {"signed_distance": distance}), term(logits, labels, {"signed_distance": other})
        )


def test_legacy_connectivity_is_blind_to_a_two_voxel_gap_and_sees_a_longer_one():
    labels = torch.zeros(1, 1, 9, 30)
    labels[0, 0, 3:6] = 1

    def with_gap(length):
        mask = labels.clone()
        mask[..., 12 : 12 + length] = 0
        return make_term("connectivity", form="legacy")((2 * mask - 1) * 80, labels)

    assert with_gap(2) == pytest.approx(0, abs=1e-6)
    assert with_gap(3) == pytest.approx(5 / 270, abs=1e-6)


def test_legacy_connectivity_does_not_grow_out_of_ignored_voxels():
    labels = torch.zeros(1, 1, 9, 9)
    labels[..., 4] = 2
    labels[..., 0] = 1
    mask = torch.where(labels == 1, 80.0, -80.0)
    mask[..., 4] = 80
    assert make_term("connectivity", form="legacy", ignore_label=2)(mask, labels) == pytest.approx(0, abs=1e-6)


def test_skeleton_of_a_rod_beside_an_ignored_half_space_stays():
    labels = torch.zeros(1, 1, 12, 12, 20)
    labels[0, 0, 4:7, 4:7] = 1
    labels[:, :, :, 7:] = 2
    missed = torch.full(labels.shape, -80.0)
    assert make_term("cldice", ignore_label=2)(missed, labels) == pytest.approx(1, abs=1e-4)
