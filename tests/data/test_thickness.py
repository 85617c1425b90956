"""Thickness of structures, and configurations that are too coarse or too narrow for it."""

import numpy as np
import pytest

from nnunet_topo.data.thickness import thickness_findings, typical_thickness


def sheet(thickness, axis, size=40):
    mask = np.zeros((size,) * 3, bool)
    mask[(slice(None),) * axis + (slice(12, 12 + thickness),)] = True
    return mask


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxels", [1, 2, 3, 4, 5])
def test_sheets_are_exact_in_every_direction(voxels, axis):
    assert typical_thickness(sheet(voxels, axis), (2.0, 2.0, 2.0)) == pytest.approx(2.0 * voxels)


def test_slanted_sheets_and_tubes_are_within_a_voxel():
    across = np.moveaxis(np.indices((40, 40, 40)) - 20, 0, -1) @ (np.array([10, 6, 3]) / np.sqrt(145))
    assert typical_thickness(np.abs(across) <= 2, (1, 1, 1)) == pytest.approx(4, abs=0.5)
    y, x = np.mgrid[:30, :30]
    tube = np.repeat((np.hypot(y - 15, x - 15) < 4.5)[None], 30, axis=0)
    assert typical_thickness(tube, (1, 1, 1)) == pytest.approx(9, abs=1)


def test_corners_of_a_thin_tube_are_not_its_middle():
    y, x = np.mgrid[:20, :20] - 10
    tube = np.repeat((np.hypot(y, x) <= 2)[None], 20, axis=0)
    assert typical_thickness(tube, (1, 1, 1)) == pytest.approx(4, abs=1)


def test_the_middle_of_many_voxels_is_found_from_a_sample():
    mask = np.zeros((8, 300, 200), bool)
    mask[3:6] = True
    assert typical_thickness(mask, (1, 1, 1)) == 3


def test_a_large_case_is_judged_where_its_structure_is():
    mask = np.zeros((8, 400, 300), bool)
    mask[3:6, 350:, 250:] = True
    assert typical_thickness(mask, (1, 1, 1)) == pytest.approx(3)


def test_in_two_dimensions_and_without_anything_to_measure():
    mask = np.zeros((20, 30), bool)
    assert typical_thickness(mask, (1, 1)) is None
    mask[8:11] = True
    assert typical_thickness(mask, (0.5, 0.5)) == pytest.approx(1.5)
    assert typical_thickness(np.ones((5, 6), bool), (1, 1)) is None


def plans(spacing, patch):
    return {"3d_fullres": {"spacing": spacing, "patch_size": patch}, "3d_cascade_fullres": {}}


def messages(spacing, patch, thickness=3.0):
    measured = {1: [thickness, thickness, 100.0]}
    return [
        finding.message for finding in thickness_findings(plans(spacing, patch), "plans.json", measured, {1: "sheet"})
    ]


def test_a_configuration_that_suits_has_no_findings():
    assert messages([1, 1, 1], [64, 64, 64]) == []


def test_a_spacing_too_coarse():
    (message,) = messages([3, 3, 3], [64, 64, 64])
    assert "'sheet' (1) to be at least 1.5 voxels thick" in message
    assert "got 1.0" in message


def test_a_patch_too_small():
    (message,) = messages([1, 1, 1], [64, 64, 8])
    assert "patches of at least 4 times the thickness of 'sheet' (1) (3 mm), got 8 mm" in message
