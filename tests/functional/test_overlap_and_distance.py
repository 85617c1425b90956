"""tversky, skeleton recall, kervadec and hausdorff against sums over voxels in numpy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, maximum_filter

from nnunet_topo.functional.components import component_ids
from nnunet_topo.functional.distance import signed_distance
from nnunet_topo.functional.distance_losses import distance_weights, hausdorff_loss, kervadec_loss
from nnunet_topo.functional.skeleton_recall import skeleton_recall_loss
from nnunet_topo.functional.tversky import tversky_loss

SPACING = (0.5, 1.0, 3.0)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(2, 2, 5, 7, 9, generator=generator, dtype=torch.float64)
    return p, torch.rand(p.shape, generator=generator) > 0.6


def each(p, y):
    """Prediction and labels of every sample and structure as float arrays."""
    return zip(p.flatten(0, 1).numpy(), y.flatten(0, 1).numpy().astype(float), strict=True)


@pytest.mark.parametrize(("alpha", "beta", "gamma"), [(0.3, 0.7, 1.0), (0.5, 0.5, 0.75), (0.0, 1.0, 2.0)])
def test_tversky(case, alpha, beta, gamma):
    expected = []
    for p, y in each(*case):
        found, false, missed = (p * y).sum(), (p * (1 - y)).sum(), ((1 - p) * y).sum()
        expected.append((1 - found / (found + alpha * false + beta * missed)) ** gamma)
    ours = tversky_loss(*case, alpha=alpha, beta=beta, gamma=gamma)
    assert ours.item() == pytest.approx(np.mean(expected), abs=1e-6)


def test_tversky_with_equal_prices_is_dice(case):
    from monai.losses import DiceLoss, TverskyLoss

    dice = DiceLoss(smooth_nr=1e-5, smooth_dr=1e-5)(*(x.double() for x in case))
    assert tversky_loss(*case, alpha=0.5, beta=0.5).item() == pytest.approx(dice.item(), abs=1e-5)
    theirs = TverskyLoss(alpha=0.3, beta=0.7, smooth_nr=1e-5, smooth_dr=1e-5)(*(x.double() for x in case))
    assert tversky_loss(*case).item() == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize(("tube", "beta"), [(0, 1.0), (1, 1.0), (2, 0.5), (1, 3.0)])
def test_skeleton_recall(case, tube, beta):
    skeletons = case[1] & (torch.rand(case[1].shape, generator=torch.Generator().manual_seed(1)) > 0.9)
    expected = []
    for (p, y), s in zip(each(*case), skeletons.flatten(0, 1).numpy(), strict=True):
        target = maximum_filter(s, 2 * tube + 1, mode="constant") * y
        recall, precision = (target * p).sum() / target.sum(), (p * y).sum() / p.sum()
        expected.append(1 - (1 + beta**2) * precision * recall / (beta**2 * precision + recall))
    ours = skeleton_recall_loss(*case, skeletons, tube=tube, beta=beta)
    assert ours.item() == pytest.approx(np.mean(expected), abs=1e-5)


def test_a_constant_inside_gives_that_recall():
    mask = torch.zeros(1, 1, 6, 6, 20, dtype=torch.bool)
    mask[..., 2:4, 2:4, 1:19] = True
    loss = skeleton_recall_loss(torch.where(mask, 0.6, 0.0), mask, mask)
    assert loss.item() == pytest.approx(1 - 2 * 0.6 / 1.6, abs=1e-6)


def distances(y):
    """Between voxel centres, in units of the smallest edge, by scipy."""
    edges = np.array(SPACING) / min(SPACING)
    return np.where(y > 0, distance_transform_edt(y > 0, edges), distance_transform_edt(y == 0, edges))


def test_kervadec_is_the_signed_distance_times_the_prediction_shifted_and_scaled(case):
    expected = []
    for p, y in each(*case):
        phi = distances(y) * np.where(y > 0, -1, 1)
        expected.append(((phi * p).sum() - (phi * y).sum()) / np.abs(phi).sum())
    signed = np.stack([signed_distance(y.numpy(), None, SPACING) for y in case[1]])
    weights = distance_weights(torch.from_numpy(signed), None, SPACING, torch.float64)
    assert kervadec_loss(*case, weights).item() == pytest.approx(np.mean(expected), rel=1e-3)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_hausdorff(case, alpha):
    expected = []
    for p, y in each(*case):
        weights = distances(y) ** alpha
        expected.append((weights * (p - y) ** 2).sum() / (weights * (p**2 + y**2)).sum())
    signed = np.stack([signed_distance(y.numpy(), None, SPACING) for y in case[1]])
    weights = distance_weights(torch.from_numpy(signed), None, SPACING, torch.float64)
    assert hausdorff_loss(*case, weights, alpha=alpha).item() == pytest.approx(np.mean(expected), rel=2e-3)


def test_hausdorff_punishes_a_distant_island_more_than_a_near_one():
    mask = torch.zeros(1, 1, 30, 30, 30, dtype=torch.bool)
    mask[..., 12:18, 12:18, 12:18] = True
    signed = torch.from_numpy(signed_distance(mask[0].numpy()))[None]
    weights = distance_weights(signed, None, None, torch.float32)
    losses = []
    for start in (18, 22, 26):
        prediction = mask.float()
        prediction[..., 13:16, 13:16, start : start + 3] = 1
        losses.append(
            (hausdorff_loss(prediction, mask, weights).item(), kervadec_loss(prediction, mask, weights).item())
        )
    assert losses == sorted(losses)
    assert losses[2][0] > 3 * losses[0][0]


def test_an_absent_structure_is_a_diagonal_away_everywhere():
    mask = torch.zeros(1, 1, 4, 5, 6, dtype=torch.bool)
    weights = distance_weights(torch.full(mask.shape, 60000.0), None, None, torch.float32)
    assert (weights == 1).all()
    assert kervadec_loss(torch.full(mask.shape, 0.3), mask, weights).item() == pytest.approx(0.3)
    assert hausdorff_loss(torch.zeros(mask.shape), mask, weights) == 0


def test_components_are_numbered_structure_by_structure():
    onehot = np.zeros((2, 5, 6, 7), bool)
    onehot[0, 0, 0, 0] = onehot[0, 1, 1, 1] = onehot[0, 4, 4, 4] = onehot[1, 2] = True
    ids = component_ids(onehot)
    assert ids.dtype == np.int16
    assert ids[0, 0, 0, 0] == ids[0, 1, 1, 1] == 1  # corners touch
    assert ids[0, 4, 4, 4] == 2
    assert ids[1].max() == 1
    valid = np.ones(onehot.shape[1:], bool)
    valid[2, :, 3] = False
    assert component_ids(onehot, valid)[1].max() == 2
    assert component_ids(np.array([[[True, False, True, False, True]]])).tolist() == [[[1, 0, 2, 0, 3]]]


def test_more_components_than_the_type_holds_start_again():
    onehot = np.zeros((1, 260, 520), bool)
    onehot[:, ::2, ::2] = True
    ids = component_ids(onehot)
    assert (ids > 0).sum() == 130 * 260
    assert ids.max() == 32767
    assert (ids == 1).sum() == 2
