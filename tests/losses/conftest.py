"""Cases of every kind of labels that nnU-Net delivers."""

from __future__ import annotations

import pytest
import torch

from nnunet_topo.errors import ConfigError
from nnunet_topo.functional.betti_engine import betti_engine
from nnunet_topo.losses import TERMS

try:
    betti_engine()
except ConfigError:
    # There are wheels of the engine for few platforms only; elsewhere all is tested but that one term.
    TERMS.pop("betti_matching")

KINDS = ("binary", "two", "three", "regions")
SPACING = (0.5, 1.0, 3.0)


def build_case(kind, *, shape=(5, 7, 9), batch=2, ignore=True, seed=0, scale=2.0, dtype=torch.float32):
    """Logits, labels, and the keyword arguments of make_term that fit them."""
    generator = torch.Generator().manual_seed(seed)
    middle = slice(shape[-1] // 2, shape[-1] // 2 + (shape[-1] > 2))
    channels = {"binary": 1, "two": 2, "three": 3, "regions": 2}[kind]
    logits = scale * torch.randn(batch, channels, *shape, generator=generator)
    ignored = torch.rand(batch, 1, *shape, generator=generator) > 0.8
    common = {"ignore_label": None, "regions": kind == "regions", "spacing": SPACING[: len(shape)]}
    if kind == "regions":
        labels = torch.rand(batch, 2, *shape, generator=generator) > 0.6
        labels[..., middle] = False  # so that there are two components at least
        if ignore:
            labels = torch.cat([labels & ~ignored, ignored], 1)
            common["ignore_label"] = 3
    else:
        classes = max(channels, 2)
        labels = torch.randint(0, classes, (batch, 1, *shape), generator=generator).to(torch.int16)
        labels[..., middle] = 0
        if ignore:
            labels[ignored] = classes
            common["ignore_label"] = classes
    return logits.to(dtype), labels, common


def ignored_voxels(labels, common):
    """(B, 1, ...) bool."""
    return labels[:, -1:].bool() if common["regions"] else labels == common["ignore_label"]


@pytest.fixture
def make_case():
    return build_case


@pytest.fixture(scope="session", name="build_case")
def build_case_of_session():
    return build_case


@pytest.fixture
def find_ignored():
    return ignored_voxels


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(
    params=[
        ("ce", {}),
        ("dice", {}),
        ("focal", {"alpha": 0.4}),
        ("variance", {}),
        ("variance", {"form": "legacy"}),
        ("entropy", {"floor": 2.0}),
        ("boundary", {"inner": 1.0, "outer": 2.5}),
        ("cldice", {"iterations": 3}),
        ("connectivity", {}),
        ("connectivity", {"form": "legacy"}),
        ("separation", {}),
        ("betti_matching", {}),
        ("scnp", {}),
        ("ce", {"scnp": True}),
        ("cldice", {"iterations": 3, "scnp": 2}),
        ("tversky", {}),
        ("tversky", {"gamma": 0.75}),
        ("kervadec", {}),
        ("hausdorff", {}),
        ("cbdice", {"iterations": 3}),
        ("skeleton_recall", {}),
        ("medial_surface_recall", {"tube": 1, "beta": 2.0}),
    ],
    ids=lambda term: "-".join([term[0], *map(str, term[1].values())]),
)
def term(request):
    """Every term that exists, with settings under which each has a gradient on a random case."""
    if request.param[0] not in TERMS:
        pytest.skip("its engine is not installed")
    return request.param
