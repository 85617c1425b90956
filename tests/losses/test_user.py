import sys
import types

import pytest
import torch
from torch import nn

from nnunet_topo.errors import ConfigError, ShapeError
from nnunet_topo.losses import CompoundLoss, make_term


class TwoArguments(nn.Module):
    def __init__(self, power, ignore_label=None):
        super().__init__()
        self.power = power
        self.ignore_label = ignore_label

    def forward(self, logits, labels):
        self.dtype = logits.dtype
        self.autocast = torch.is_autocast_enabled("cpu")
        return (logits**self.power).mean()


class ThreeArguments(nn.Module):
    target_names = ("signed_distance",)
    at_all_scales = True

    def __init__(self, **everything):
        super().__init__()
        self.everything = everything

    def forward(self, logits, labels, targets=None):
        self.targets = targets
        return logits.mean()[None]


class PlainCallable:
    def __call__(self, logits, labels):
        return logits.abs().mean()


class NotAScalar(nn.Module):
    def forward(self, logits, labels):
        return logits


class NotCallable:
    pass


@pytest.fixture(autouse=True)
def module(monkeypatch):
    """These classes as an importable module of a user."""
    mine = types.ModuleType("my_losses")
    for thing in (TwoArguments, ThreeArguments, PlainCallable, NotAScalar, NotCallable):
        setattr(mine, thing.__name__, thing)
    mine.constant = 3
    monkeypatch.setitem(sys.modules, "my_losses", mine)


def own(name, **settings):
    return make_term("mine", **{"class": f"my_losses:{name}"}, **settings)


def test_gets_its_parameters_and_the_settings_that_it_names(make_case):
    logits, labels, common = make_case("two")
    term = own("TwoArguments", power=4, **common, batch_dice=True)
    assert (term.loss.power, term.loss.ignore_label) == (4, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = term(logits.half(), labels)
    assert term.loss.dtype == torch.float32
    assert not term.loss.autocast
    assert value == pytest.approx((logits.half().float() ** 4).mean().item())


def test_gets_no_setting_that_it_does_not_name(make_case):
    _, _, common = make_case("two")
    assert own("ThreeArguments", weight=2, **common).loss.everything == {"weight": 2}


def test_targets_are_passed_where_it_takes_three(make_case):
    logits, labels, common = make_case("three")
    term = own("ThreeArguments", **common)
    assert term(logits, labels).shape == ()
    assert term.loss.targets["signed_distance"].shape == (2, 2, 5, 7, 9)
    assert term.target_names == ("signed_distance",)
    assert term.at_all_scales
    given = torch.zeros(2, 2, 5, 7, 9)
    term(logits, labels, {"signed_distance": given})
    assert term.loss.targets["signed_distance"] is given


def test_within_a_compound_loss(make_case):
    logits, labels, common = make_case("two")
    loss = CompoundLoss({"values": own("PlainCallable", **common)}, scale_weights=None)
    assert loss(logits, labels) == pytest.approx(logits.abs().mean().item())


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_such_package:Loss", "importable .* got 'no_such_package:Loss'"),
        ("my_losses:NoSuchLoss", "NoSuchLoss"),
        ("my_losses:constant", "which is a int"),
        ("my_losses:NotCallable", "objects can be called"),
        ("my_losses", "package.module:Name"),
        ("my_losses:", "package.module:Name"),
    ],
)
def test_what_cannot_be_used_is_refused(reference, message):
    with pytest.raises(ConfigError, match=message):
        make_term("mine", **{"class": reference})


def test_wrong_parameters_are_refused():
    with pytest.raises(ConfigError, match=r"losses.mine.powr: .*Did you mean 'power'"):
        own("TwoArguments", powr=2)
    with pytest.raises(ConfigError, match="cannot be built"):
        own("TwoArguments")


def test_what_is_not_a_scalar_is_refused(make_case):
    logits, labels, common = make_case("two")
    with pytest.raises(ShapeError, match="expected a scalar tensor as the loss, got shape"):
        own("NotAScalar", **common)(logits, labels)
