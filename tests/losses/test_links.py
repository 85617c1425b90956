"""connectivity and separation on the errors that a single voxel makes."""

import itertools

import pytest
import torch

from nnunet_topo.losses import make_term

SURE = 3.0


def tube():
    labels = torch.zeros(1, 1, 9, 11, 24, dtype=torch.int16)
    labels[0, 0, 3:6, 4:7, :] = 1
    return labels


def sheets(gap):
    """Two sheets, two voxels thick, with `gap` voxels between them."""
    labels = torch.zeros(1, 1, 6 + gap, 18, 20, dtype=torch.int16)
    labels[0, 0, 1:3], labels[0, 0, 3 + gap : 5 + gap] = 1, 1
    return labels


def hairpin(gap):
    """One component: the two sheets joined along one edge."""
    labels = sheets(gap)
    labels[0, 0, 1:-1, :2] = 1
    return labels


def sure_logits(labels):
    foreground = torch.where(labels == 1, SURE, -SURE).float()
    return torch.cat([torch.zeros_like(foreground), foreground], 1)


def broken(case):
    """Labels, and the voxels at which a sure prediction is wrong."""
    labels = {
        "gap in a tube": tube(),
        "hole in a sheet": sheets(5),
        "bridge between two sheets": sheets(1),
        "bridge two long": sheets(2),
        "bridge between two parts of one component": hairpin(1),
        "bridge four long between two parts of one component": hairpin(4),
    }[case]
    wrong = torch.zeros_like(labels, dtype=torch.bool)
    if case == "gap in a tube":
        wrong[0, 0, :, :, 12] = labels[0, 0, :, :, 12] == 1
    elif case == "hole in a sheet":
        wrong[0, 0, 1:3, 9, 10] = True
    else:
        wrong[0, 0, 3:-3, 9, 10] = True
    return labels, wrong


GAPS = ("gap in a tube", "hole in a sheet")
BETWEEN_TWO = ("bridge between two sheets", "bridge two long")
WITHIN_ONE = ("bridge between two parts of one component", "bridge four long between two parts of one component")


def judged(name, case, **parameters):
    """Value of the right and of the broken prediction, and the gradient's size at each voxel of the broken one."""
    labels, wrong = broken(case)
    term = make_term(name, **parameters)
    right = sure_logits(labels)
    logits = torch.where(wrong, -right, right).requires_grad_()
    value = term(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    return term(right, labels).item(), value.item(), gradient[:, 1:], wrong, right[:, 1:]


def check_seen(name, case):
    before, after, gradient, wrong, right = judged(name, case)
    assert before < 0.01
    assert after > before + 0.02
    assert after > 10 * before
    strongest = gradient.abs() == gradient.abs().max()
    assert not (strongest & ~wrong).any()
    assert gradient.abs()[wrong].max() > 20 * gradient.abs()[~wrong].max()
    # Descent moves the wrong voxels to the right side.
    assert (gradient[wrong] * right[wrong] <= 0).all()


@pytest.mark.parametrize("case", [*GAPS, *BETWEEN_TWO, *WITHIN_ONE])
def test_connectivity_sees_it_and_its_strongest_gradient_is_there(case):
    check_seen("connectivity", case)


@pytest.mark.parametrize("case", BETWEEN_TWO)
def test_separation_sees_bridges_between_components(case):
    check_seen("separation", case)


@pytest.mark.parametrize("case", [*GAPS, *WITHIN_ONE])
def test_separation_sees_nothing_else(case):
    before, after, _, _, _ = judged("separation", case)
    assert after == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("case", ["hole in a sheet", "bridge between two sheets"])
def test_the_diarys_formula_hardly_sees_one_voxel(case):
    before, after, gradient, wrong, _ = judged("connectivity", case, form="legacy")
    assert after - before < 0.002
    assert gradient.abs()[wrong].max() < 1e-3


def test_filling_a_gap_voxel_by_voxel_lowers_connectivity_each_time():
    labels = torch.zeros(1, 1, 3, 3, 20, dtype=torch.int16)
    labels[0, 0, 1, 1] = 1
    logits = sure_logits(labels)
    logits[0, 1, 1, 1, 6:14] *= -1
    term, values = make_term("connectivity"), []
    for filled in range(9):
        logits[0, 1, 1, 1, 6 : 6 + filled] = SURE
        values.append(term(logits, labels).item())
    assert all(later < earlier for earlier, later in itertools.pairwise(values))


def test_every_class_is_kept_apart_from_itself_alone():
    labels = torch.zeros(1, 1, 9, 9, 9, dtype=torch.int16)
    labels[0, 0, 2], labels[0, 0, 4], labels[0, 0, 6] = 1, 2, 1
    term, logits = make_term("separation"), torch.zeros(1, 3, 9, 9, 9)
    neither = term(logits, labels)
    logits[0, 2, 4, 4, 4] = 9.0  # class 2 has one component, and stands between the two of class 1
    assert term(logits, labels) < neither
    logits[0, 1, 4, 4, 4] = 18.0
    assert term(logits, labels) > neither
