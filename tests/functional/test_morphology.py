import numpy as np
import pytest
import torch
from scipy import ndimage

from nnunet_topo.functional.morphology import dilate, dilate_cube, erode_cross, erode_cross_backward

SHAPES = [(6, 5), (3, 4, 5), (1, 6, 4), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_to_scipy_with_background_outside(shape):
    x = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    cross = ndimage.generate_binary_structure(len(shape), 1)
    eroded = ndimage.grey_erosion(x[0, 0].numpy(), footprint=cross, mode="constant", cval=0)
    dilated = ndimage.grey_dilation(x[0, 0].numpy(), size=(3,) * len(shape), mode="constant", cval=0)
    np.testing.assert_array_equal(erode_cross(x)[0, 0], eroded)
    np.testing.assert_array_equal(dilate_cube(x)[0, 0], dilated)


@pytest.mark.parametrize("radius", [1, 2])
def test_dilation_of_any_radius_equals_max_pooling(radius):
    x = torch.rand(2, 3, 5, 7, 9, requires_grad=True)
    size = 2 * radius + 1
    expected = torch.nn.functional.max_pool3d(x, size, stride=1, padding=radius)
    torch.testing.assert_close(dilate(x, radius), expected, rtol=0, atol=0)
    pull = torch.randn_like(x)
    ours, theirs = (torch.autograd.grad((y * pull).sum(), x)[0] for y in (dilate(x, radius), expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(shape):
    x = torch.rand(1, 2, *shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: dilate(x, 2), (x,))

    class Erode(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            eroded = erode_cross(x)
            ctx.save_for_backward(x, eroded)
            return eroded

        @staticmethod
        def backward(ctx, gradient):
            return erode_cross_backward(gradient, *ctx.saved_tensors)

    assert torch.autograd.gradcheck(Erode.apply, (x,))


def test_ties_share_the_gradient_equally():
    x = torch.ones(1, 1, 3, 3, requires_grad=True)
    dilate(x)[0, 0, 1, 1].backward()
    torch.testing.assert_close(x.grad[0, 0], torch.full((3, 3), 1 / 9))


def test_inputs_are_not_changed():
    x = torch.rand(1, 1, 4, 5)
    before = x.clone()
    erode_cross(x)
    dilate_cube(x)
    torch.testing.assert_close(x, before, rtol=0, atol=0)
