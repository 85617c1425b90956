"""Betti numbers against gudhi's cubical complexes and against shapes with known topology."""

import cc3d
import gudhi
import numpy as np
import pytest
from skimage.measure import euler_number

from nnunet_topo.errors import ConfigError, ShapeError
from nnunet_topo.metrics.betti import betti_errors, betti_numbers, euler_characteristic

FULL = {2: 8, 3: 26}


def oracle(mask, connectivity):
    """Betti numbers of the sublevel complex of 1 - mask, built on top cells (26, 8) or on vertices (6, 4)."""
    cells = 1.0 - np.pad(mask, 1).astype(float)
    kind = "top_dimensional_cells" if connectivity == FULL[mask.ndim] else "vertices"
    complex_ = gudhi.CubicalComplex(**{kind: cells})
    complex_.compute_persistence()
    numbers = list(complex_.persistent_betti_numbers(0.5, 0.5))
    return tuple([*numbers, 0, 0, 0][:3])


def torus():
    z, y, x = np.mgrid[:9, :17, :17] - np.array([4, 8, 8])[:, None, None, None]
    return (np.hypot(y, x) - 5) ** 2 + z**2 <= 2.2**2


def shell():
    mask = np.zeros((5, 6, 7), bool)
    mask[1:4, 1:5, 1:6] = True
    mask[2:3, 2:4, 2:5] = False
    return mask


def corner_cubes():
    mask = np.zeros((4, 4, 4), bool)
    mask[:2, :2, :2] = mask[2:, 2:, 2:] = True
    return mask


@pytest.mark.parametrize("connectivity", [26, 6])
def test_equals_gudhi_and_cc3d_on_random_volumes(connectivity):
    generator = np.random.default_rng(0)
    for index in range(500):
        shape = generator.integers(1, 9, size=3)
        mask = generator.random(shape) < generator.uniform(0.05, 0.95)
        numbers = betti_numbers(mask, connectivity=connectivity)
        assert numbers == oracle(mask, connectivity), index
        components = cc3d.connected_components(np.pad(mask, 1).astype(np.uint8), connectivity=connectivity).max()
        outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
        cavities = cc3d.connected_components(outside, connectivity=32 - connectivity).max() - 1
        assert (numbers[0], numbers[2]) == (components, cavities), index


@pytest.mark.parametrize("connectivity", [8, 4])
def test_equals_gudhi_on_random_images(connectivity):
    generator = np.random.default_rng(1)
    for index in range(40):
        mask = generator.random(generator.integers(1, 14, size=2)) < generator.uniform(0.1, 0.9)
        numbers = betti_numbers(mask, connectivity=connectivity)
        assert numbers == oracle(mask, connectivity), index
        assert numbers[2] == 0


@pytest.mark.parametrize(("connectivity", "skimage_connectivity"), [(26, 3), (6, 1)])
def test_euler_characteristic_equals_skimage(connectivity, skimage_connectivity):
    mask = np.random.default_rng(2).random((11, 13, 17)) < 0.4
    expected = euler_number(np.pad(mask, 1), connectivity=skimage_connectivity)
    assert euler_characteristic(mask, connectivity=connectivity) == expected


@pytest.mark.parametrize(
    ("mask", "with_26", "with_6"),
    [
        (torus(), (1, 1, 0), (1, 1, 0)),
        (shell(), (1, 0, 1), (1, 0, 1)),
        (corner_cubes(), (1, 0, 0), (2, 0, 0)),
        (np.zeros((3, 4, 5), bool), (0, 0, 0), (0, 0, 0)),
        (np.ones((3, 4, 5), bool), (1, 0, 0), (1, 0, 0)),
    ],
    ids=["torus", "shell", "corner cubes", "empty", "full"],
)
def test_known_shapes(mask, with_26, with_6):
    assert betti_numbers(mask, connectivity=26) == with_26
    assert betti_numbers(mask, connectivity=6) == with_6
    assert betti_numbers(mask) == with_26


def test_a_tunnel_is_a_loop_only_while_the_sheet_surrounds_it():
    sheet = np.zeros((7, 9, 5), bool)
    sheet[:, :, 2] = True
    sheet[3, 4, 2] = False
    assert betti_numbers(sheet) == (1, 1, 0)
    sheet[:4, 4, 2] = False
    assert betti_numbers(sheet) == (1, 0, 0)


def test_errors_count_absolute_differences_and_honour_ignore():
    truth = np.zeros((5, 9, 9), bool)
    truth[2] = True
    prediction = truth.copy()
    prediction[2, 4, 4] = False
    prediction[0, 0, 0] = prediction[0, 0, 8] = True
    assert betti_errors(prediction, truth) == (2, 1, 0)
    assert betti_errors(truth, prediction) == (2, 1, 0)
    ignore = np.zeros_like(truth)
    ignore[0] = True
    ignore[2, 4, 4] = True
    assert betti_errors(prediction, truth, ignore=ignore) == (0, 0, 0)


def test_non_contiguous_views_count_the_same():
    mask = np.random.default_rng(3).random((6, 7, 8)) < 0.4
    assert betti_numbers(mask.transpose(2, 0, 1)[::-1]) == betti_numbers(mask)


def test_wrong_input_names_the_argument_and_the_mend():
    with pytest.raises(ShapeError, match=r"mask: expected .* got 3-D uint8.*labels == 1"):
        betti_numbers(np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(ShapeError, match="got 4-D bool"):
        betti_numbers(np.zeros((1, 2, 2, 2), bool))
    with pytest.raises(ConfigError, match="connectivity: expected 26 or 6 for a 3-D mask, got 8"):
        betti_numbers(np.zeros((2, 2, 2), bool), connectivity=8)
    with pytest.raises(ConfigError, match="8 or 4 for a 2-D mask, got 26"):
        betti_numbers(np.zeros((2, 2), bool), connectivity=26)
    with pytest.raises(ShapeError, match=r"ground_truth: expected the shape \(2, 2\)"):
        betti_errors(np.zeros((2, 2), bool), np.zeros((2, 3), bool))
    with pytest.raises(ShapeError, match="ignore: expected the shape"):
        betti_errors(np.zeros((2, 2), bool), np.zeros((2, 2), bool), ignore=np.zeros((3, 2), bool))
