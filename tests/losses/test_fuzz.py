"""Any input at all gives a finite loss within the documented range, and a finite gradient."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_topo.losses import TERMS, make_term

RANGES = {
    "ce": (0, math.inf),
    "dice": (0, 1),
    "focal": (0, math.inf),
    "variance": (0, 1),
    "entropy": (0, 0.3),
    "boundary": (0, math.inf),
    "cldice": (0, 1),
    "connectivity": (0, 1),
    "separation": (0, 1),
    "scnp": (0, math.inf),
    "betti_matching": (0, 1),
    "tversky": (0, 1),
    "kervadec": (0, 1),
    "hausdorff": (0, 1),
    "cbdice": (0, 1),
    "skeleton_recall": (0, 1),
    "medial_surface_recall": (0, 1),
}
EXTREME = 65504.0  # the largest number in float16
LOGITS = st.one_of(st.sampled_from([-EXTREME, 0.0, EXTREME]), st.floats(-EXTREME, EXTREME, width=32))


@st.composite
def inputs(draw):
    """Logits, labels and the settings of make_term; labels and logits from one fill value to all different."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=2, max_size=3)))
    batch, channels = draw(st.integers(1, 2)), draw(st.integers(1, 5))
    regions, ignore = draw(st.booleans()), draw(st.booleans())
    logits = draw(arrays(np.float32, (batch, channels, *shape), elements=LOGITS))
    if regions:
        labels = draw(arrays(bool, (batch, channels + ignore, *shape)))
    else:
        highest = max(channels - 1, 1)
        labels = draw(arrays(np.int16, (batch, 1, *shape), elements=st.integers(0, highest + ignore)))
    common = {
        "regions": regions,
        "ignore_label": max(channels - 1, 1) + 1 if ignore else None,
        "spacing": draw(st.sampled_from([None, (0.5, 1.0, 3.0)[: len(shape)]])),
        "batch_dice": draw(st.booleans()),
    }
    dtype = draw(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
    return torch.from_numpy(logits).to(dtype), torch.from_numpy(labels), common


@pytest.mark.parametrize("name", TERMS)
@settings(max_examples=20)
@given(case=inputs(), scnp=st.integers(0, 2))
def test_any_input_gives_a_finite_loss_within_its_range(name, case, scnp):
    logits, labels, common = case
    logits.requires_grad_()
    value = make_term(name, **common, **({} if name == "scnp" else {"scnp": scnp}))(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    low, high = RANGES[name]
    assert low - 1e-6 <= value <= high + 1e-6
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", [*sorted(set(TERMS) - {"entropy", "variance"})])
def test_the_range_is_that_of_the_docstring(name):
    low, high = RANGES[name]
    assert f"Range [{low}, {'inf)' if math.isinf(high) else f'{high}]'}." in TERMS[name].__doc__
