import itertools

import pytest
import torch

from nnunet_topo.functional.worst_neighbour import worst_neighbour


def slow(scores, member, valid, radius):
    """Voxel by voxel."""
    result = scores.clone()
    spatial = scores.shape[2:]
    for b, c in itertools.product(range(scores.shape[0]), range(scores.shape[1])):
        for voxel in itertools.product(*map(range, spatial)):
            if not valid[(b, 0, *voxel)]:
                continue
            own = member[(b, c, *voxel)]
            found = []
            for other in itertools.product(*[range(max(0, v - radius), v + radius + 1) for v in voxel]):
                inside = all(o < n for o, n in zip(other, spatial, strict=True))
                if inside and valid[(b, 0, *other)] and member[(b, c, *other)] == own:
                    found.append(scores[(b, c, *other)].item())
            result[(b, c, *voxel)] = min(found) if own else max(found)
    return result


@pytest.mark.parametrize("shape", [(2, 2, 5, 4, 3), (1, 3, 6, 5)])
@pytest.mark.parametrize("radius", [1, 2])
def test_equals_the_slow_definition(shape, radius):
    torch.manual_seed(0)
    scores = torch.randn(shape) * 100
    member = torch.rand(shape) > 0.5
    valid = torch.rand(shape[0], 1, *shape[2:]) > 0.3
    expected = slow(scores, member, valid, radius)
    torch.testing.assert_close(worst_neighbour(scores, member, valid, radius=radius), expected, rtol=0, atol=0)
    everywhere = torch.ones_like(valid)
    expected = slow(scores, member, everywhere, radius)
    torch.testing.assert_close(worst_neighbour(scores, member, radius=radius), expected, rtol=0, atol=0)


def test_gradient_goes_to_the_worst_and_never_to_an_ignored_voxel():
    scores = torch.tensor([[[[3.0, -2.0, 5.0, 9.0]]]], requires_grad=True)
    member = torch.tensor([[[[True, True, True, False]]]])
    valid = torch.tensor([[[[True, True, True, False]]]])
    worst_neighbour(scores, member, valid).mul(valid).sum().backward()
    torch.testing.assert_close(scores.grad, torch.tensor([[[[0.0, 3.0, 0.0, 0.0]]]]))


def test_extreme_scores_stay_finite_where_the_class_exists():
    scores = torch.tensor([[[[1e30, -1e30, 0.0]]]])
    member = torch.tensor([[[[True, True, False]]]])
    assert torch.isfinite(worst_neighbour(scores, member)).all()
