"""A GPU's part of every term, seen without one: nothing lies on the wrong device, and nothing waits for values.

Tensors on torch's device `meta` have shapes and dtypes, but no values. What would stop and wait for a GPU (reading a
value, shapes that depend on values, a copy to the CPU) cannot be done there; what else would is looked for.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunet_topo.losses import CompoundLoss, make_term
from nnunet_topo.losses.label_targets import label_target
from nnunet_topo.losses.view import View

ON_THE_CPU = {"betti_matching": {}, "cldice": {"iterations": None}, "cbdice": {"iterations": None}}
"""Terms that say in their documentation that they wait, and the parameters with which they do."""


class _Operations(TorchDispatchMode):
    """Operations, those of the backward pass among them, with tensors of two devices."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        if len({tensor.device for tensor in tensors}) > 1:
            self.mixed.append(str(function))
        return result


class _Calls(TorchFunctionMode):
    """Calls that copy numbers of Python to the device, which is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", str(function))
        if name in ("tensor", "as_tensor", "new_tensor") or (
            name in ("__getitem__", "__setitem__") and any(isinstance(leaf, list) for leaf in _indices(args[1]))
        ):
            self.copies.append(name)
        return function(*args, **(kwargs or {}))


def _indices(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def waits(loss: Any, logits: torch.Tensor, *others: Any) -> list[str]:
    """What a forward and a backward pass on `meta` would have waited for on a GPU."""
    with _Operations() as operations, _Calls() as calls:
        value = loss(logits, *others)
        value.backward()
    assert (value.device.type, value.dtype, value.shape) == ("meta", torch.float32, ())
    assert logits.grad is not None
    assert logits.grad.dtype == logits.dtype
    return operations.mixed + calls.copies


def targets_of(term: Any, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """The label-derived targets that a term wants, as the workers compute them, on `meta`."""
    view = View(logits, labels, ignore_label=term.ignore_label, regions=term.regions)
    return {name: label_target(name, view.onehot, view.valid, term.spacing).to("meta") for name in term.target_names}


@pytest.mark.parametrize("batch_dice", [False, True])
def test_no_term_waits(term, kind, batch_dice, make_case):
    name, parameters = term
    logits, labels, common = make_case(kind, dtype=torch.float16)
    module = make_term(name, **common, **parameters, batch_dice=batch_dice)
    arguments = labels.to("meta"), targets_of(module, logits, labels)
    logits = logits.to("meta").requires_grad_()
    if name in ON_THE_CPU and parameters.items() >= ON_THE_CPU[name].items():
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            waits(module, logits, *arguments)
    else:
        assert waits(module, logits, *arguments) == []


@pytest.mark.parametrize("name", ["cldice", "cbdice"])
def test_automatic_iterations_wait_once(name, kind, make_case, monkeypatch):
    """They are read off the labels; what is done with them waits for nothing more."""
    reads = []
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: reads.append(tensor.shape) or [3] * tensor.numel())
    logits, labels, common = make_case(kind, dtype=torch.float16)
    module = make_term(name, **common, **ON_THE_CPU[name])
    assert waits(module, logits.to("meta").requires_grad_(), labels.to("meta"), {}) == []
    assert len(reads) == 1


def test_class_weights_wait_for_nothing(kind, make_case):
    logits, labels, common = make_case(kind, dtype=torch.float16)
    classes = logits.shape[1] + (kind in ("binary", "regions"))
    for name in ("ce", "focal"):
        module = make_term(name, **common, class_weights=[1.0 + i for i in range(classes)])
        assert waits(module, logits.to("meta").requires_grad_(), labels.to("meta"), {}) == []


def test_the_compound_loss_waits_for_nothing(make_case):
    logits, labels, common = make_case("three", shape=(8, 8, 8), dtype=torch.float16)
    names = ("ce", "dice", "boundary", "skeleton_recall", "separation")
    loss = CompoundLoss(
        {name: make_term(name, **common) for name in names}, scale_weights=(0.6, 0.4), keep_unused_heads=True
    )
    extras = {}
    for module in loss.terms.values():
        extras |= targets_of(module, logits, labels)
    logits = logits.to("meta").requires_grad_()
    labels = labels.to("meta")

    def supervised(full, full_labels):
        small = (slice(None), slice(None), *[slice(None, None, 2)] * 3)
        return loss([full, full[small]], [full_labels, full_labels[small], *(extras[n] for n in loss.target_names)])

    assert waits(supervised, logits, labels) == []
    assert {value.device.type for value in loss.values.values()} == {"meta"}


def test_waiting_is_seen(make_case):
    """The instrument itself: each of these would make a GPU wait."""
    logits, _, _ = make_case("two", dtype=torch.float16)
    culprits = {
        "new_tensor": lambda x: (x * x.new_tensor(2.0)).float().sum(),
        "tensor": lambda x: (x * torch.tensor(2.0, device=x.device)).float().sum(),
        "__getitem__": lambda x: x[[0, 1]].float().sum(),
        "aten._to_copy.default": lambda x: (x * torch.ones(9).to(x.device)).float().sum(),
    }
    for name, culprit in culprits.items():
        assert waits(culprit, logits.to("meta").requires_grad_()) == [name]
    for reading in (lambda x: x.sum() * x.max().item(), lambda x: x[x > 0].sum(), lambda x: (x + torch.ones(9)).sum()):
        with pytest.raises((RuntimeError, NotImplementedError)):
            waits(reading, logits.to("meta").requires_grad_())
