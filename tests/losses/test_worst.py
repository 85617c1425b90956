"""The parameter scnp of every term, and the term of that name."""

import pytest
import torch

from nnunet_topo.functional.masks import masked_logits
from nnunet_topo.functional.worst_neighbour import worst_neighbour
from nnunet_topo.losses import TERMS, CompoundLoss, make_term


def worst_logits(logits, labels, common, radius=1):
    """Logits to which a term without the parameter can be applied."""
    if common["regions"]:
        valid = ~labels[:, -1:]
        member = labels[:, :-1]
    else:
        valid = labels != common["ignore_label"]
        classes = range(logits.shape[1]) if logits.shape[1] > 1 else [1]
        member = torch.cat([labels == c for c in classes], 1)
    return worst_neighbour(masked_logits(logits, valid), member, valid, radius=radius)


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("name", [name for name in TERMS if name != "scnp"])
def test_any_term_with_it_is_the_term_of_the_worst_neighbours(name, radius, kind, make_case):
    logits, labels, common = make_case(kind)
    expected = make_term(name, **common)(worst_logits(logits, labels, common, radius), labels)
    assert torch.equal(make_term(name, **common, scnp=radius)(logits, labels), expected)
    assert torch.equal(make_term(name, **common, scnp=0)(logits, labels), make_term(name, **common)(logits, labels))


def test_the_term_is_cross_entropy_and_dice_with_it(kind, make_case):
    logits, labels, common = make_case(kind)
    parts = [make_term(name, **common, scnp=2)(logits, labels) for name in ("ce", "dice")]
    torch.testing.assert_close(make_term("scnp", **common, radius=2)(logits, labels), sum(parts))


def test_the_neighbours_of_a_gap_pay_for_it():
    labels = torch.ones(1, 1, 3, 9, dtype=torch.int16)
    logits = torch.full((1, 1, 3, 9), 4.0)
    logits[..., 4] = -4.0
    logits.requires_grad_()
    plain, worst = make_term("ce")(logits, labels), make_term("ce", scnp=True)(logits, labels)
    assert worst > 2.5 * plain
    (gradient,) = torch.autograd.grad(worst, logits)
    assert (gradient[..., 4].sum() / gradient.sum()) > 0.9


def test_a_compound_shares_views_only_between_terms_with_the_same(make_case):
    logits, labels, common = make_case("three")
    terms = {"ce": make_term("ce", **common), "dice": make_term("dice", **common, scnp=True)}
    terms["scnp"] = make_term("scnp", **common)
    loss = CompoundLoss(terms, scale_weights=[2 / 3, 1 / 3])
    small = logits[:, :, ::2, ::2, ::2], labels[:, :, ::2, ::2, ::2]
    value = loss([logits, small[0]], [labels, small[1]])
    alone = {name: (2 * term(logits, labels) + term(*small)) / 3 for name, term in terms.items()}
    torch.testing.assert_close(value, sum(alone.values()))
    for name in terms:
        torch.testing.assert_close(loss.values[name], alone[name].detach())
