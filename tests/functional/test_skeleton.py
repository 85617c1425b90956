import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from nnunet_topo.functional.skeleton import (
    MOST_ITERATIONS,
    iterations_for,
    mask_depth,
    mask_skeleton,
    soft_depth,
    soft_skeleton,
)


def reference(x, iterations):
    """The textbook form by pooling layers, the outside being background, plus what remains at the end."""
    pool, n = (F.max_pool2d, 2) if x.ndim == 4 else (F.max_pool3d, 3)

    def erode(x):
        padded = F.pad(x, (1, 1) * n)
        pooled = []
        for axis in range(n):
            kernel = [1] * n
            kernel[axis] = 3
            pooled.append(-pool(-padded, kernel, 1, [size // 2 for size in kernel]))
        smallest = torch.stack(pooled).amin(0)
        return smallest[(..., *[slice(1, -1)] * n)]

    def opened(x):
        return pool(erode(x), 3, 1, 1)

    skeleton = F.relu(x - opened(x))
    for step in range(1, iterations + 1):
        x = erode(x)
        found = F.relu(x - opened(x)) if step < iterations else x
        skeleton = skeleton + F.relu(found - skeleton * found)
    return skeleton


@pytest.mark.parametrize("shape", [(11, 8), (9, 8, 7)])
@pytest.mark.parametrize("iterations", [1, 2, 3, 5, 7])  # one segment of the backward pass, several, one cut short
def test_equals_the_slow_form_in_value_and_gradient(shape, iterations):
    torch.manual_seed(0)
    x = torch.rand(2, 2, *shape, dtype=torch.float64) ** 0.25  # high values: several erosions leave something
    x.requires_grad_()
    ours, theirs = soft_skeleton(x, iterations), reference(x, iterations)
    torch.testing.assert_close(ours, theirs)
    pull = torch.randn_like(x)
    gradients = [torch.autograd.grad((skeleton * pull).sum(), x)[0] for skeleton in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("shape", [(6, 5), (5, 4, 3)])
def test_gradcheck(shape):
    x = torch.rand(1, 2, *shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: soft_skeleton(x, 2), (x,), atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 5), (5, 4, 3)])
@pytest.mark.parametrize("iterations", [1, 4])
def test_depth_gradcheck(shape, iterations):
    x = torch.rand(1, 2, *shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: soft_depth(x, iterations), (x,), atol=1e-5)


def test_depth_of_a_mask_is_the_city_block_distance_to_the_background():
    mask = torch.rand(2, 2, 8, 9, 10, generator=torch.Generator().manual_seed(0)) > 0.05
    expected = [
        [ndimage.distance_transform_cdt(np.pad(m, 1), "taxicab")[1:-1, 1:-1, 1:-1] for m in sample]
        for sample in mask.numpy()
    ]
    expected = torch.from_numpy(np.array(expected)).clamp_max(4)
    torch.testing.assert_close(mask_depth(mask, 3).long(), expected.long())
    torch.testing.assert_close(soft_depth(mask.float(), 3), expected.float())


def test_a_depth_past_a_byte_does_not_wrap():
    assert mask_depth(torch.ones(1, 1, 521, 521, dtype=torch.bool), 300).max() == 261


@pytest.mark.parametrize("iterations", [2, [1, 3, 5, 1, 3, 2]])
def test_skeleton_of_a_mask_is_the_soft_one(iterations):
    mask = torch.rand(2, 3, 9, 8, 7, generator=torch.Generator().manual_seed(0)) > 0.1
    assert mask_skeleton(mask, iterations).dtype == torch.uint8
    torch.testing.assert_close(mask_skeleton(mask, iterations).float(), soft_skeleton(mask.float(), iterations))


def test_each_image_has_its_own_iterations_in_value_and_gradient():
    torch.manual_seed(0)
    x = (torch.rand(2, 2, 9, 8, 7) ** 0.25).requires_grad_()
    for function in (soft_skeleton, soft_depth):
        together = function(x, [1, 4, 2, 4])
        apart = torch.stack(
            [function(x[b : b + 1, k : k + 1], n) for b, k, n in ((0, 0, 1), (0, 1, 4), (1, 0, 2), (1, 1, 4))]
        ).reshape(x.shape)
        torch.testing.assert_close(together, apart)
        pull = torch.randn_like(x)
        ours, theirs = (torch.autograd.grad((y * pull).sum(), x)[0] for y in (together, apart))
        torch.testing.assert_close(ours, theirs)


def test_iterations_are_those_of_the_thickness_and_of_no_other_sample():
    masks = torch.zeros(2, 2, 40, 40, dtype=torch.bool)
    masks[0, 0, 5:35, 10:13] = True  # survives one erosion
    masks[0, 1, 5:35, 10:20] = True  # four
    masks[1, 0] = True  # nineteen: more than are done
    assert iterations_for(masks) == [3, 6, MOST_ITERATIONS, 2]
    assert iterations_for(masks[1:]) == [MOST_ITERATIONS, 2]


def test_band_at_the_border_of_the_patch_has_its_skeleton_in_its_middle():
    band = torch.zeros(1, 1, 40, 30)
    band[..., :10] = 1
    row = soft_skeleton(band)[0, 0, 20]
    assert row.nonzero().flatten().tolist() == [4, 5]


def test_thick_structure_keeps_its_core():
    ball = torch.zeros(1, 1, 41, 41)
    ball[..., 3:38, 3:38] = 1
    assert soft_skeleton(ball, 3)[0, 0, 20, 20] == 1
    assert soft_skeleton(ball, 3).sum() < ball.sum()


def test_thin_structure_is_its_own_skeleton():
    line = torch.zeros(1, 1, 9, 9, 9)
    line[0, 0, 4, :, 4] = 0.7
    torch.testing.assert_close(soft_skeleton(line, 5), line)


def test_memory_kept_for_backward_does_not_grow_with_iterations():
    x = torch.rand(1, 1, 8, 9, 10, requires_grad=True)

    def kept(iterations):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            soft_skeleton(x, iterations)
        return sum(sizes)

    assert kept(3) == kept(12) == x.nbytes
