"""Defects of public topology losses, found by running them: the case, what the peer gives, and the right answer."""

import itertools

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from scipy.ndimage import distance_transform_edt, label

from nnunet_topo.functional.cldice import soft_cldice_loss
from nnunet_topo.functional.skeleton import mask_skeleton
from nnunet_topo.functional.thinning import medial_surface, skeleton
from nnunet_topo.losses import CompoundLoss, make_term
from nnunet_topo.losses.label_targets import label_target
from nnunet_topo.training.targets import AppendLabelTargets

CENTRELINE = ("cldice", "cbdice")
RECALL = ("skeleton_recall", "medial_surface_recall")
OVERLAP = ("dice", "tversky", "hausdorff")


def rod(size=24, radius=2.5, gap=()):
    """Labels (1, 1, ...) of a tube along the first axis."""
    axis = torch.arange(size) - size / 2 + 0.5
    mask = (axis[:, None] ** 2 + axis[None] ** 2 <= radius**2)[None].repeat(size, 1, 1)
    mask[list(gap)] = False
    return mask[None, None].to(torch.int16)


def logits_of(mask, confidence=3.0):
    """Two channels that predict the mask with that logit."""
    one = torch.where(mask > 0, confidence, -confidence)
    return torch.cat([-one / 2, one / 2], 1)


def value(name, prediction, labels, **parameters):
    return make_term(name, **parameters)(prediction, labels).item()


def value_and_gradient(name, prediction, labels, **parameters):
    prediction = prediction.clone().requires_grad_()
    loss = make_term(name, **parameters)(prediction, labels)
    return loss.item(), torch.autograd.grad(loss, prediction)[0]


@pytest.mark.parametrize("name", CENTRELINE)
def test_p1_the_number_of_iterations_counts(name):
    # clDice repository: iter_=1 and iter_=50 give 0.84786 both, num_iter is fixed at 10.
    labels, prediction = rod(radius=6), torch.randn(1, 2, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    assert abs(value(name, prediction, labels, iterations=1) - value(name, prediction, labels, iterations=8)) > 1e-3


@pytest.mark.parametrize("name", [*CENTRELINE, *RECALL, *OVERLAP])
def test_p2_one_channel_is_one_structure(name):
    # MONAI of June 2025: one channel gives loss 0.0 and gradient 0.0.
    prediction = torch.rand(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(0)).logit()
    loss, gradient = value_and_gradient(name, prediction, rod())
    assert loss > 0.6
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", [*CENTRELINE, *RECALL, *OVERLAP])
def test_p3_each_class_has_its_own_ratio(name):
    # MONAI 1.6: many rods of class 1 found, the one rod of class 2 missed, gives 0.0042.
    labels = torch.zeros(1, 1, 20, 20, 20, dtype=torch.int16)
    labels[0, 0, :, ::4, ::4] = 1
    labels[0, 0, 2, 2, :] = 2
    found = torch.where(labels == 1, labels, 0).long()[:, 0]
    prediction = 50.0 * torch.nn.functional.one_hot(found, 3).movedim(-1, 1).float()
    assert value(name, prediction, labels) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("name", [*CENTRELINE, *RECALL, *OVERLAP])
def test_p3b_prediction_and_labels_in_the_wrong_order_are_refused(name):
    # MONAI 1.6 takes (labels, prediction), as it once was, without an error: 0.9704 instead of 0.9418.
    with pytest.raises(ValueError, match="floats of shape"):
        make_term(name)(rod(), logits_of(rod()))
    with pytest.raises(ValueError, match="labels: expected shape"):
        make_term(name)(rod().float(), logits_of(rod()))
    with pytest.raises(ValueError, match=r"labels: expected values 0\.\.1"):  # same shapes and types
        make_term(name)(rod().float(), logits_of(rod())[:, 1:])


@pytest.mark.parametrize("name", [*CENTRELINE, *RECALL])
@pytest.mark.parametrize("parameters", [{}, {"iterations": 3}])
def test_p4_a_faint_prediction_of_a_full_patch_costs(name, parameters):
    # All soft skeletons by max-pooling: no skeleton in a full patch, loss 0.0 and gradient 0.
    labels = torch.ones(1, 1, 16, 16, 16, dtype=torch.int16)
    prediction = torch.full((1, 1, 16, 16, 16), 0.2).logit()
    loss, gradient = value_and_gradient(name, prediction, labels, **({} if name in RECALL else parameters))
    assert loss > 0.3
    assert gradient.min() < 0


def test_p4b_the_skeleton_of_a_band_along_the_border_is_in_its_middle():
    # Max-pooling takes the outside for foreground: the skeleton lies in column 0.
    band = torch.zeros(1, 1, 40, 30, dtype=torch.bool)
    band[..., :10] = True
    assert mask_skeleton(band)[0, 0, 20].nonzero().flatten().tolist() == [4, 5]
    assert np.flatnonzero(skeleton(band[0, 0].numpy())[20]).tolist() == [4, 5]


@pytest.mark.parametrize("name", CENTRELINE)
@pytest.mark.parametrize("iterations", [None, 3])
def test_p5_a_cut_through_a_thick_cylinder_is_seen(name, iterations):
    # MONAI and the clDice repository at 3 iterations: no skeleton in a cylinder of radius 7, loss 0.0.
    labels, cut = rod(40, radius=7), rod(40, radius=7, gap=range(18, 22))
    whole = value(name, logits_of(labels, 50.0), labels, iterations=iterations)
    assert value(name, logits_of(cut, 50.0), labels, iterations=iterations) > whole + 0.03


@pytest.mark.parametrize("name", CENTRELINE)
@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
def test_p6_faint_background_noise_does_not_drown_a_perfect_mask(name, noise):
    # MONAI and the clDice repository: 0.748, 0.883 and 0.940; without noise 0.026. Hard clDice is 1 in all cases.
    labels = rod(48)
    background = torch.rand(labels.shape, generator=torch.Generator().manual_seed(0)) * noise
    prediction = torch.where(labels > 0, 0.95, background).logit()
    assert value(name, prediction, labels) < 0.12


@pytest.mark.parametrize("name", [*CENTRELINE, *RECALL])
def test_p7_the_strongest_gradient_is_in_the_gap(name):
    # cbDice: 0.0 in the gap, 2.1e-4 elsewhere, since the prediction is thresholded first.
    labels = rod()
    prediction = logits_of(rod(gap=range(10, 14)), 1.5)[:, 1:] * 2
    _, gradient = value_and_gradient(name, prediction, labels)
    gap = gradient[0, 0, 10:14, 10:14, 10:14]
    assert gap.amin((1, 2)).max() < 0  # in each layer of it
    assert -gap.min().item() == pytest.approx(gradient.abs().max().item(), rel=1e-5)


@pytest.mark.parametrize("name", [*CENTRELINE, *RECALL, *OVERLAP, "kervadec"])
def test_p8_ignored_voxels_are_neither_foreground_nor_background(name):
    # cbDice: -0.676 and -1.0 for an ignored box predicted as background and as foreground.
    labels = rod()
    labels[..., :10] = 2
    one = logits_of(labels == 1)
    other = torch.where(labels == 2, -one, one)
    assert value(name, one, labels, ignore_label=2) == value(name, other, labels, ignore_label=2)
    assert value(name, 20 * one, labels, ignore_label=2) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("target", ["skeleton", "medial_surface"])
@pytest.mark.parametrize("width", [2, 3, 4])
def test_p9_ignored_voxels_beside_a_rod_do_not_take_its_skeleton(target, width):
    # Skeleton Recall: 32 skeleton voxels without, 0 with an ignored half-space that touches the rod.
    labels = torch.zeros(1, 1, 20, 20, 40, dtype=torch.int16)
    labels[0, 0, 8 : 8 + width, 8 : 8 + width, 4:36] = 1
    beside = labels.clone()
    beside[0, 0, 8 + width :] = 2
    alone, with_ignored = (label_target(target, y == 1, y != 2, None) for y in (labels, beside))
    assert torch.equal(alone, with_ignored)
    assert alone.sum() == 32 * (1 if width % 2 else 4)


def test_p10_lumen_and_wall_each_have_their_own_skeleton():
    # Skeleton Recall thins the union: no voxel for the wall, and missing everything scores -0.5.
    lumen, vessel = rod(30, radius=4), rod(30, radius=7)
    labels = torch.where(lumen > 0, 1, 2 * vessel)
    onehot = torch.cat([labels == 1, labels == 2], 1)
    thin = label_target("skeleton", onehot, None, None)
    assert (thin.sum((0, 2, 3, 4)) >= 30).all()
    assert (thin.bool() & ~onehot).sum() == 0
    missed = 50.0 * torch.nn.functional.one_hot(torch.zeros(1, 30, 30, 30, dtype=torch.long), 3).movedim(-1, 1)
    assert value("skeleton_recall", missed.float(), labels) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("axis", range(3))
def test_p11_and_p12_a_sheet_has_a_medial_surface_in_any_orientation(axis):
    # Skeleton Recall: 2 voxels. villa, slice by slice along one axis: 9, 1560 and 1520 voxels.
    sheet = np.zeros((50, 50, 50), bool)
    box = [slice(5, 45)] * 3
    box[axis] = slice(24, 27)
    sheet[tuple(box)] = True
    surface = medial_surface(sheet)
    assert surface.sum() == 1600
    assert surface.any(axis).sum() == 1600


@pytest.mark.parametrize("name", RECALL)
def test_p13_predicting_everything_is_no_minimum(name):
    # Skeleton Recall: -1.0, the best value there is.
    labels = rod()
    everything = value(name, logits_of(torch.ones_like(labels), 50.0), labels)
    assert everything > 0.9
    assert value(name, logits_of(labels, 50.0), labels) == pytest.approx(0, abs=1e-5)
    _, gradient = value_and_gradient(name, logits_of(torch.ones_like(labels), 1.0), labels)
    assert gradient[:, 1][labels[:, 0] == 0].min() > 0  # background everywhere is pushed down


def helix(n=64):
    t = np.linspace(0, 6 * np.pi, 4000)
    axis = np.ones((n, n, n), bool)
    points = np.stack([n / 2 + 0.36 * n * np.cos(t), n / 2 + 0.36 * n * np.sin(t), 5 + (n - 10) * t / t[-1]], 1)
    axis[tuple(np.round(points).astype(int).T)] = False
    return distance_transform_edt(axis) <= 1.5


def test_p15_targets_are_not_scaled_down_with_the_labels():
    # Nearest neighbour, as for nnU-Net's label maps, breaks the skeleton of a helix: 1, 24, 2 and 2 components.
    labels = torch.from_numpy(helix().astype(np.int16))[None]
    scales = DownsampleSegForDSTransform([[1.0] * 3, [0.5] * 3, [0.25] * 3])(segmentation=labels)["segmentation"]
    append = AppendLabelTargets(["skeleton"], ignore_label=None, regions=False, spacing=None)
    *maps, thin = append(segmentation=scales)["segmentation"]
    assert [len(m[0]) for m in maps] == [64, 32, 16]
    assert thin.shape == labels.shape
    assert label(thin[0].numpy(), np.ones((3, 3, 3)))[1] == label(labels[0].numpy(), np.ones((3, 3, 3)))[1] == 1
    assert label(thin[0, ::2, ::2, ::2].numpy(), np.ones((3, 3, 3)))[1] > 5  # what is being avoided


def test_p16_a_weight_of_one_drops_no_other_term():
    # topolosses: alpha from 0.999 to 1 takes the loss from 1.4492 to 0.8497, the base loss is gone.
    labels = rod()
    prediction = torch.randn(1, 2, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    loss = CompoundLoss({name: make_term(name) for name in ("ce", "cldice")}, scale_weights=None)
    totals = []
    for weight in (0.999, 1.0):
        loss.set_weights({"ce": 1.0, "cldice": weight})
        totals.append(loss(prediction, labels).item())
    assert totals[1] - totals[0] == pytest.approx(0.001 * loss.values["cldice"].item(), abs=1e-5)


@pytest.mark.parametrize("name", [*CENTRELINE, *RECALL, *OVERLAP, "kervadec"])
def test_p19_perfect_is_zero_inverted_is_large_and_a_gap_lies_between(name):
    # topolosses' warping loss: 30.0 for a perfect prediction, IndexError for an inverted one, 29.6 for one with a gap.
    labels = rod()
    perfect, inverted = (value(name, sign * logits_of(labels, 50.0), labels) for sign in (1, -1))
    gap = value(name, logits_of(rod(gap=range(10, 14)), 50.0), labels)
    assert perfect == pytest.approx(0, abs=1e-5)
    assert inverted > 0.9
    assert perfect + 1e-6 < gap < inverted


@pytest.mark.parametrize("name", [*CENTRELINE, *RECALL, *OVERLAP])
def test_p21_half_precision_overflows_nowhere(name):
    # MONAI in float16 at 128^3: the sum of the skeleton is infinite, loss 1.0, gradient 0. Here the sums pass 65504.
    n = 64
    labels = torch.zeros(1, 1, n, n, n, dtype=torch.int16)
    labels[..., ::4] = 1
    noise = torch.randn(1, 1, n, n, n, generator=torch.Generator().manual_seed(0))
    prediction = (2.0 * noise + 2.0 * labels).half()
    targets = {"skeleton": labels, "medial_surface": labels, "signed_distance": (0.5 - labels).half()}
    for term in (make_term(name), make_term(name, **({"iterations": 2} if name in CENTRELINE else {}))):
        half = prediction.clone().requires_grad_()
        loss = term(half, labels, targets)
        loss.backward()
        assert loss.item() == pytest.approx(term(prediction.float(), labels, targets).item(), rel=1e-3)
        assert 0.01 < loss < 0.9
        assert half.grad.isfinite().all()
        assert half.grad.abs().max() > 0


@pytest.mark.parametrize("name", [*CENTRELINE, *RECALL, *OVERLAP, "kervadec"])
def test_p23_the_wrong_class_costs_more(name):
    # cbDice merges all foreground: -1.0 whether class 1 is predicted where class 1 or class 2 is labelled.
    right = rod()
    prediction = torch.full((1, 3, 24, 24, 24), -20.0)
    prediction[:, 1][right[:, 0] == 1] = 20.0
    prediction[:, 0][right[:, 0] == 0] = 20.0
    assert value(name, prediction, 2 * right) > value(name, prediction, right) + (0 if name == "kervadec" else 0.5)


@pytest.mark.parametrize("width", range(1, 9))
def test_l1_bars_of_even_width_keep_their_skeleton(width):
    # skimage's skeletonize: 24, 0, 22, 0, 20, 0, 18 and 0 voxels for widths 1 to 8.
    bar = np.zeros((width + 4, width + 4, 28), bool)
    bar[2:-2, 2:-2, 2:26] = True
    assert skeleton(bar)[2:-2, 2:-2, 2:26].any((0, 1)).all()
    assert skeleton(bar[..., : width + 4] & bar[..., : width + 4].transpose(2, 0, 1)).any()


def test_l1_branches_of_even_width_keep_their_skeletons():
    # skimage's skeletonize: nothing of this L, and one voxel or a few, in the blob, of a rod that runs into a blob.
    angle = np.zeros((8, 36, 36), bool)
    angle[2:6, 2:6, 2:34] = angle[2:6, 2:34, 30:34] = True
    thin = skeleton(angle)
    assert thin[:, 2:6, 4:30].any((0, 1)).all()
    assert thin[:, 6:32, 30:].any((0, 2)).all()
    into_blob = np.zeros((21, 21, 49), bool)
    into_blob[2:19, 2:19, 30:47] = into_blob[8:12, 8:12, 4:30] = True
    assert skeleton(into_blob)[..., 6:30].any((0, 1)).all()


def test_hausdorff_and_kervadec_do_not_grow_with_the_patch():
    # MONAI's HausdorffDTLoss: 18 at 64^3, 85 at 128^3 for the same picture at twice the size. Here a voxel at the
    # boundary is at distance 1 at either size, which is what remains of the difference.
    def picture(n, radius, shift):
        z, y, x = np.meshgrid(*[np.arange(n) - n / 2 + 0.5] * 3, indexing="ij")
        return torch.from_numpy((z**2 + (y - shift) ** 2 + x**2 <= radius**2).astype(np.int16))[None, None]

    for name in ("hausdorff", "kervadec"):
        small = value(name, logits_of(picture(24, 6, 2), 50.0), picture(24, 6, 0))
        large = value(name, logits_of(picture(48, 12, 4), 50.0), picture(48, 12, 0))
        assert large == pytest.approx(small, rel=0.35)
        assert small > 1e-3
        for factor in (0.1, 7.0):
            scaled = value(name, logits_of(picture(24, 6, 2), 50.0), picture(24, 6, 0), spacing=(factor,) * 3)
            assert scaled == pytest.approx(small, rel=1e-3)


def test_a_gap_filled_layer_by_layer_lowers_the_loss_at_each_step():
    labels = rod()
    for name, fill in itertools.product((*CENTRELINE, *RECALL, *OVERLAP, "kervadec"), (50.0, 2.0)):
        values = [value(name, logits_of(rod(gap=range(10, 10 + n)), fill), labels) for n in (4, 3, 2, 1, 0)]
        assert all(b < a for a, b in itertools.pairwise(values)), name
        island = labels.clone()
        island[0, 0, 2:6, 2:6, 2:6] = 1
        assert value(name, logits_of(island, fill), labels) > values[-1], name


@pytest.mark.parametrize("name", [*RECALL, *OVERLAP, "kervadec", "cldice", "cbdice"])
def test_hard_limit_is_the_value_of_the_mask(name):
    # Logits times 50 are a mask; the loss of the mask itself, computed from 0 and 1, is the same.
    labels = rod(16)
    prediction = 3 * torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    prediction = prediction.sign() * prediction.abs().clamp_min(0.5)
    assert value(name, 50 * prediction, labels) == pytest.approx(value(name, 1e6 * prediction, labels), abs=1e-4)


def test_cldice_of_a_mask_equals_its_definition():
    labels, mask = rod(20) > 0, rod(20, radius=4, gap=range(6, 8)) > 0
    ours, theirs = mask_skeleton(mask, 8), mask_skeleton(labels, 8)
    precision = (ours * labels).sum() / ours.sum()
    sensitivity = (theirs * mask).sum() / theirs.sum()
    expected = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    assert soft_cldice_loss(mask.float(), labels, iterations=8) == pytest.approx(expected.item(), abs=1e-5)
