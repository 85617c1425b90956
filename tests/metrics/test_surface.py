"""Surface distances against surface-distance (exactly), MONAI (to a voxel) and shapes worked out by hand."""

import math

import numpy as np
import pytest
import surface_distance
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

from nnunet_topo.errors import ConfigError, ShapeError
from nnunet_topo.metrics.surface import surface_dice, surface_errors

ANISOTROPIC = (0.5, 1.0, 3.0)


def oracle(prediction, truth, spacing, tolerance):
    """(surface Dice, HD95, ASSD pooled over both surfaces) by the reference library."""
    found = surface_distance.compute_surface_distances(truth, prediction, spacing)
    distances = np.concatenate([found["distances_gt_to_pred"], found["distances_pred_to_gt"]])
    areas = np.concatenate([found["surfel_areas_gt"], found["surfel_areas_pred"]])
    return (
        surface_distance.compute_surface_dice_at_tolerance(found, tolerance),
        surface_distance.compute_robust_hausdorff(found, 95),
        (distances * areas).sum() / areas.sum(),
    )


def ball(shape, centre, radius, spacing=(1, 1, 1)):
    axes = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    return sum(((axis - c) * s) ** 2 for axis, c, s in zip(axes, centre, spacing, strict=True)) <= radius**2


@pytest.mark.parametrize("ndim", [2, 3])
def test_equals_the_reference_library_on_random_masks(ndim):
    generator = np.random.default_rng(ndim)
    compared = 0
    for index in range(150):
        shape = generator.integers(1, 11, size=ndim)
        spacing = tuple(generator.choice([0.3, 0.7, 1.0, 1.4, 3.0], size=ndim))
        tolerance = float(generator.choice([0, 0.7, 1.0, 1.4, 2.1, 3.0, 9.0]))
        prediction = generator.random(shape) < generator.uniform(0.02, 0.98)
        truth = generator.random(shape) < generator.uniform(0.02, 0.98)
        if not prediction.any() or not truth.any():
            continue
        errors = surface_errors(prediction, truth, spacing_mm=spacing)
        dice = surface_dice(prediction, truth, spacing_mm=spacing, tolerance_mm=tolerance)
        expected = oracle(prediction, truth, spacing, tolerance)
        assert (dice, errors.hd95, errors.assd) == pytest.approx(expected, abs=1e-9), index
        compared += 1
    assert compared > 120


def test_a_large_tolerance_in_voxels_takes_the_other_way_to_the_same_value():
    generator = np.random.default_rng(5)
    spacing = (0.1, 0.2, 0.15)
    prediction, truth = (generator.random((20, 17, 19)) < share for share in (0.002, 0.001))
    for tolerance in (0.4, 1.0, 1.5):
        value = surface_dice(prediction, truth, spacing_mm=spacing, tolerance_mm=tolerance)
        assert value == pytest.approx(oracle(prediction, truth, spacing, tolerance)[0], abs=1e-9)
        assert 0 < value < 1


def test_agrees_with_monai_to_a_voxel():
    # MONAI counts the boundary voxels of each mask; here it is pieces of the surface between voxels.
    shape, spacing = (40, 26, 14), ANISOTROPIC
    truth = ball(shape, (18, 12, 6), 7.0, spacing)
    prediction = ball(shape, (22, 13, 7), 7.5, spacing)
    first, second = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth))
    options = {"include_background": True, "spacing": spacing}
    errors = surface_errors(prediction, truth, spacing_mm=spacing)
    assert errors.hd95 == pytest.approx(
        compute_hausdorff_distance(first, second, percentile=95, **options).item(), abs=max(spacing)
    )
    assert errors.assd == pytest.approx(
        compute_average_surface_distance(first, second, symmetric=True, **options).item(), abs=0.5
    )
    for tolerance in (1.0, 2.0, 3.0):
        exact = compute_surface_dice(first, second, [tolerance], use_subvoxels=True, **options).item()
        assert surface_dice(prediction, truth, spacing_mm=spacing, tolerance_mm=tolerance) == pytest.approx(
            exact, abs=1e-5
        )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_parallel_sheets_are_their_distance_apart_along_each_axis(axis):
    truth = np.zeros((12, 13, 14), bool)
    prediction = truth.copy()
    at = [slice(None)] * 3
    at[axis] = 3
    truth[tuple(at)] = True
    at[axis] = 5
    prediction[tuple(at)] = True
    distance = 2 * ANISOTROPIC[axis]
    errors = surface_errors(prediction, truth, spacing_mm=ANISOTROPIC)
    # Each face is at most the distance from the other sheet, whose nearer face is one voxel less away.
    assert errors.hd95 == distance
    assert distance / 2 < errors.assd < distance
    assert surface_dice(prediction, truth, spacing_mm=ANISOTROPIC, tolerance_mm=distance) == 1
    assert surface_dice(prediction, truth, spacing_mm=ANISOTROPIC, tolerance_mm=distance * 0.49) < 0.2


def test_nothing_depends_on_the_order_of_the_masks_or_on_where_they_lie():
    truth, prediction = ball((16, 18, 20), (7, 8, 9), 5), ball((16, 18, 20), (8, 8, 10), 6)
    expected = surface_errors(prediction, truth, spacing_mm=ANISOTROPIC)
    assert surface_errors(truth, prediction, spacing_mm=ANISOTROPIC) == pytest.approx(expected)
    moved = [np.pad(mask, ((4, 0), (0, 9), (3, 3))) for mask in (prediction, truth)]
    assert surface_errors(*moved, spacing_mm=ANISOTROPIC) == expected
    turned = [mask.transpose(2, 0, 1)[::-1] for mask in (prediction, truth)]
    rotated = surface_errors(*turned, spacing_mm=(3.0, 0.5, 1.0))
    assert (rotated.hd95, rotated.assd) == pytest.approx((expected.hd95, expected.assd))


def test_equal_masks_are_at_distance_zero():
    mask = ball((9, 10, 11), (4, 4, 4), 3)
    errors = surface_errors(mask, mask.copy(), spacing_mm=(1, 1, 1))
    assert (errors.hd95, errors.assd) == (0, 0)
    assert surface_dice(mask, mask.copy(), spacing_mm=(1, 1, 1), tolerance_mm=0) == 1


def test_empty_masks():
    mask, empty = ball((9, 10, 11), (4, 4, 4), 3), np.zeros((9, 10, 11), bool)
    both = surface_errors(empty, empty, spacing_mm=ANISOTROPIC)
    assert math.isnan(both.hd95)
    assert math.isnan(both.assd)
    assert surface_dice(empty, empty, spacing_mm=ANISOTROPIC, tolerance_mm=1) == 1
    diagonal = math.hypot(4.5, 10, 33)
    for one in ((mask, empty), (empty, mask)):
        errors = surface_errors(*one, spacing_mm=ANISOTROPIC)
        assert (errors.hd95, errors.assd) == (diagonal, diagonal)
        assert surface_dice(*one, spacing_mm=ANISOTROPIC, tolerance_mm=100) == 0


def test_wrong_settings_are_named():
    mask = np.ones((3, 3, 3), bool)
    with pytest.raises(ConfigError, match="spacing_mm: expected 3 numbers > 0, got"):
        surface_errors(mask, mask, spacing_mm=(1, 1))
    with pytest.raises(ConfigError, match="spacing_mm"):
        surface_dice(mask, mask, spacing_mm=(1, 0, 1), tolerance_mm=1)
    with pytest.raises(ConfigError, match="tolerance_mm: expected a number >= 0, got -1"):
        surface_dice(mask, mask, spacing_mm=(1, 1, 1), tolerance_mm=-1)
    with pytest.raises(ShapeError, match="prediction: expected a 2-D or 3-D numpy array of bool"):
        surface_dice(mask.astype(int), mask, spacing_mm=(1, 1, 1), tolerance_mm=1)
