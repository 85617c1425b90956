import pytest
import torch
from torch import nn

from nnunet_topo.errors import ConfigError, ShapeError
from nnunet_topo.functional.distance import signed_distance
from nnunet_topo.losses import NNUNET_TERM, TERMS, CompoundLoss, Term, make_term

SCALES = (0.6, 0.4, 0.0)


class Boom(Term):
    def evaluate(self, view, targets):
        raise RuntimeError("a term of weight 0 did some work")


class Stock(nn.Module):
    """Sees what it is called with."""

    def forward(self, outputs, targets):
        self.called_with = (outputs, targets)
        self.autocast = torch.is_autocast_enabled("cpu")
        return sum(output.float().square().mean() for output in ([outputs] if torch.is_tensor(outputs) else outputs))


@pytest.fixture
def deep(make_case):
    """Outputs and labels of three scales."""
    cases = [make_case("two", shape=shape, ignore=True) for shape in ((8, 9, 10), (4, 5, 5), (2, 3, 3))]
    return [case[0].requires_grad_() for case in cases], [case[1] for case in cases], cases[0][2]


def terms_of(names, common):
    return {name: make_term(name, **common) for name in names}


def test_deep_supervision_is_the_weighted_sum_of_single_losses(deep):
    outputs, labels, common = deep
    terms = terms_of(TERMS, common)
    loss = CompoundLoss(terms, scale_weights=SCALES)
    weights = {name: 0.5 + i for i, name in enumerate(TERMS)}
    loss.set_weights(weights)
    total = loss(outputs, labels)
    expected = 0.0
    for name, term in terms.items():
        used = SCALES if name in ("ce", "dice", "focal", "tversky", "scnp") else (1.0, 0.0, 0.0)
        value = sum(w * term(o, y) for w, o, y in zip(used, outputs, labels, strict=True) if w)
        torch.testing.assert_close(loss.values[name], value.detach())
        expected = expected + weights[name] * value
    torch.testing.assert_close(total, expected)
    assert total.dtype == torch.float32
    ours = torch.autograd.grad(total, outputs[:2])
    torch.testing.assert_close(ours, torch.autograd.grad(expected, outputs[:2]))


def test_label_targets_from_the_tail_give_the_same_loss(deep):
    outputs, labels, common = deep
    loss = CompoundLoss(terms_of(["dice", "boundary"], common), scale_weights=SCALES)
    assert loss.target_names == ("signed_distance",)
    distance = torch.stack(
        [torch.from_numpy(signed_distance((y == 1).numpy(), (y[0] != 2).numpy(), common["spacing"])) for y in labels[0]]
    )
    assert torch.equal(loss(outputs, [*labels, distance]), loss(outputs, labels))
    assert not torch.equal(loss(outputs, [*labels, distance * 3]), loss(outputs, labels))


def test_targets_stay_wanted_at_weight_zero(deep):
    outputs, labels, common = deep
    loss = CompoundLoss(terms_of(["dice", "boundary"], common), scale_weights=SCALES)
    loss.set_weights({"dice": 1.0})
    assert loss.target_names == ("signed_distance",)
    assert loss(outputs, [*labels, torch.full((2, 1, 8, 9, 10), torch.nan)]).isfinite()


def test_terms_of_weight_zero_do_no_work(deep):
    outputs, labels, common = deep
    boom = Boom(**{key: common[key] for key in ("ignore_label", "regions")})
    loss = CompoundLoss({"boom": boom, **terms_of(["dice"], common)}, scale_weights=SCALES)
    for weights in ({"dice": 1.0}, {"dice": 1.0, "boom": 0.0}):
        loss.set_weights(weights)
        loss(outputs, labels)
        assert set(loss.values) == {"dice"}
    loss.set_weights({"boom": 0.1})
    with pytest.raises(RuntimeError, match="did some work"):
        loss(outputs, labels)


def test_scales_of_weight_zero_are_not_looked_at(deep):
    outputs, labels, common = deep
    loss = CompoundLoss(terms_of(["dice", "ce"], common), scale_weights=SCALES)
    labels[2] = torch.zeros(1)
    assert loss(outputs, labels).isfinite()


def test_single_tensors_without_deep_supervision(make_case):
    logits, labels, common = make_case("three")
    for scale_weights in (None, SCALES):
        loss = CompoundLoss(terms_of(["dice", "boundary"], common), scale_weights=scale_weights)
        expected = make_term("dice", **common)(logits, labels) + make_term("boundary", **common)(logits, labels)
        torch.testing.assert_close(loss(logits, labels), expected)
        torch.testing.assert_close(loss(logits, [labels]), expected)
        torch.testing.assert_close(loss([logits] if scale_weights is None else logits, labels), expected)


def test_stock_is_called_as_nnunet_calls_it(deep):
    outputs, labels, common = deep
    stock = Stock()
    loss = CompoundLoss(terms_of(["boundary"], common), scale_weights=SCALES, stock=stock)
    loss.set_weights({NNUNET_TERM: 1.0})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = loss(outputs, [*labels, torch.zeros(2, 1, 8, 9, 10)])
    assert torch.equal(total, stock(outputs, labels))
    assert set(loss.values) == {NNUNET_TERM}
    loss.set_weights({NNUNET_TERM: 2.0, "boundary": 3.0})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = loss(outputs, labels)
    assert stock.autocast
    assert stock.called_with == (outputs, labels)
    expected = 2 * stock(outputs, labels) + 3 * make_term("boundary", **common)(outputs[0], labels[0])
    torch.testing.assert_close(mixed, expected)
    loss(outputs[0], labels[0])
    assert stock.called_with[1] is labels[0]


def test_no_stock_no_nnunet_term(make_case):
    loss = CompoundLoss(terms_of(["dice"], {}), scale_weights=None)
    with pytest.raises(ConfigError, match="nnunet"):
        loss.set_weights({NNUNET_TERM: 1.0})


@pytest.mark.parametrize("content", [1.0, torch.inf, torch.nan])
def test_unused_heads_get_a_gradient_of_zero_only_when_asked(deep, content):
    outputs, labels, common = deep
    outputs[2] = torch.full_like(outputs[2], content).requires_grad_()
    for keep in (False, True):
        loss = CompoundLoss(terms_of(["cldice"], common), scale_weights=SCALES, keep_unused_heads=keep)
        total = loss(outputs, labels)
        plain = make_term("cldice", **common)(outputs[0], labels[0])
        assert torch.equal(total, plain)
        gradients = torch.autograd.grad(total, outputs, allow_unused=True)
        assert torch.equal(gradients[0], torch.autograd.grad(plain, outputs[0])[0])
        if keep:
            assert all((gradient == 0).all() for gradient in gradients[1:])
        else:
            assert gradients[1:] == (None, None)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"dic": 1.0}, "Did you mean 'dice'"),
        ({"dice": -0.1}, r"weights.dice: expected a finite number >= 0, got -0.1"),
        ({"dice": float("nan")}, "finite"),
        ({"dice": 0.0}, "at least one > 0"),
        ({}, "at least one > 0"),
    ],
)
def test_wrong_weights_are_refused_and_change_nothing(weights, message):
    loss = CompoundLoss(terms_of(["dice", "ce"], {}), scale_weights=None)
    loss.set_weights({"dice": 0.25})
    with pytest.raises(ConfigError, match=message):
        loss.set_weights(weights)
    assert loss.weights == {"dice": 0.25, "ce": 0.0}


def test_wrong_numbers_of_outputs_and_targets_are_refused(deep):
    outputs, labels, common = deep
    loss = CompoundLoss(terms_of(["boundary"], common), scale_weights=SCALES)
    with pytest.raises(ShapeError, match="outputs: expected 3"):
        loss(outputs[:2], labels)
    with pytest.raises(ShapeError, match="targets: expected 3 label maps"):
        loss(outputs, labels[:2])
    with pytest.raises(ShapeError, match="got 5"):
        loss(outputs, [*labels, labels[0], labels[0]])


def test_terms_that_read_labels_differently_are_refused():
    with pytest.raises(ConfigError, match="expected one ignore_label"):
        CompoundLoss({"a": make_term("dice"), "b": make_term("ce", ignore_label=2)}, scale_weights=None)


def test_scale_weights_of_zero_are_refused():
    with pytest.raises(ConfigError, match="scale_weights"):
        CompoundLoss(terms_of(["dice"], {}), scale_weights=[0.0])


def test_terms_share_one_softmax(make_case, monkeypatch):
    logits, labels, common = make_case("three")
    calls = []
    log_softmax = torch.Tensor.log_softmax
    monkeypatch.setattr(torch.Tensor, "log_softmax", lambda *a: calls.append(1) or log_softmax(*a))
    CompoundLoss(terms_of(TERMS, common), scale_weights=None)(logits, labels)
    assert len(calls) == 2  # that of scnp, whose logits are others


def bytes_kept(loss, logits, *targets):
    """Bytes a voxel that stay alive for the backward pass, each storage counted once, without the inputs."""
    inputs = {t.untyped_storage().data_ptr() for t in (logits, *targets)}
    seen = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in inputs and tensor.numel() > 100:
            seen[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = loss(logits, targets[0] if len(targets) == 1 else list(targets))
    del total
    return sum(size for size, _ in seen.values()) / logits[:, 0].numel()


def test_memory_kept_for_backward(make_case):
    """Bytes a voxel for two classes; stock's cross-entropy and Dice keep 32."""
    logits, labels, _ = make_case("two", shape=(16, 16, 16), ignore=False)
    logits = logits.half().requires_grad_()
    loss = CompoundLoss(terms_of(TERMS, {}), scale_weights=None)
    targets = [torch.ones(2, 1, 16, 16, 16).half() for _ in loss.target_names]
    diary = ("ce", "dice", "focal", "variance", "entropy", "boundary")
    recalls = ("dice", "ce", "skeleton_recall", "medial_surface_recall")
    budget = {
        ("dice", "ce"): 22,
        ("dice", "ce", "focal"): 40,
        diary: 60,
        recalls: 26,
        ("cldice",): 22,
        ("cbdice",): 44,
        ("kervadec", "hausdorff"): 30,
        ("connectivity", "separation"): 30,
        ("scnp",): 40,
    }
    for names, most in budget.items():
        loss.set_weights(dict.fromkeys(names, 1.0))
        assert bytes_kept(loss, logits, labels, *targets) <= most, names


def test_weights_are_floats_and_values_detached(make_case):
    logits, labels, common = make_case("two")
    loss = CompoundLoss(terms_of(["dice"], common), scale_weights=None)
    loss.set_weights({"dice": 2})
    loss(logits.requires_grad_(), labels)
    assert type(loss.weights["dice"]) is float
    assert not loss.values["dice"].requires_grad
    assert loss.values["dice"].shape == ()
