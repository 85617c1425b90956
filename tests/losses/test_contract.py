"""What every term promises, whatever it measures."""

import math

import pytest
import torch

from nnunet_topo.errors import ConfigError, DataError, ShapeError
from nnunet_topo.losses import LABEL_TARGETS, TERMS, CompoundLoss, make_term


def value_and_gradient(name, logits, labels, **settings):
    logits = logits.detach().clone().requires_grad_()
    value = make_term(name, **settings)(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("garbage", [1e4, math.inf, math.nan])
def test_ignored_voxels_change_not_one_bit(term, kind, batch_dice, garbage, make_case, find_ignored):
    name, parameters = term
    logits, labels, common = make_case(kind)
    ignored = find_ignored(labels, common)
    other_labels = labels
    if kind == "regions":
        other_labels = torch.cat([labels[:, :-1] ^ ignored, ignored], 1)
    settings = {**common, **parameters, "batch_dice": batch_dice}
    value, gradient = value_and_gradient(name, logits, labels, **settings)
    other_value, other_gradient = value_and_gradient(
        name, torch.where(ignored, garbage, logits), other_labels, **settings
    )
    assert torch.equal(value, other_value)
    assert torch.equal(gradient, other_gradient)
    assert (gradient[ignored.expand_as(gradient)] == 0).all()
    assert gradient.abs().max() > 0  # else the above would say nothing


def test_an_ignore_label_that_does_not_occur_changes_nothing(term, kind, make_case):
    name, parameters = term
    logits, labels, common = make_case(kind, ignore=False)
    value, gradient = value_and_gradient(name, logits, labels, **common, **parameters)
    if kind == "regions":
        labels = torch.cat([labels, torch.zeros_like(labels[:, :1])], 1)
    common["ignore_label"] = 7
    other_value, other_gradient = value_and_gradient(name, logits, labels, **common, **parameters)
    torch.testing.assert_close(value, other_value)
    torch.testing.assert_close(gradient, other_gradient)


def test_ignored_voxels_count_as_if_cut_away(kind, make_case):
    """Half of the patch ignored equals the other half alone: ignored voxels act as the outside does."""
    logits, labels, common = make_case(kind, shape=(6, 8), ignore=False)
    extended_logits = torch.cat([logits, torch.randn_like(logits)], -1)
    common["ignore_label"] = 5
    if kind == "regions":
        extended = torch.zeros(2, 3, 6, 16, dtype=torch.bool)
        extended[:, :2, :, :8], extended[:, 2, :, 8:] = labels, True
        labels = torch.cat([labels, torch.zeros_like(labels[:, :1])], 1)
    else:
        extended = torch.cat([labels, torch.full_like(labels, 5)], -1)
    for name in TERMS:
        term = make_term(name, **common)
        torch.testing.assert_close(term(logits, labels), term(extended_logits, extended), msg=name)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_nothing_valid_is_zero_with_zero_gradient(term, kind, batch_dice, make_case, find_ignored):
    name, parameters = term
    logits, labels, common = make_case(kind)
    labels[:, -1:] = True if kind == "regions" else common["ignore_label"]
    value, gradient = value_and_gradient(name, logits, labels, **common, **parameters, batch_dice=batch_dice)
    assert value == pytest.approx(0, abs=1e-6)
    assert (gradient == 0).all()


@pytest.mark.parametrize("shape", [(5, 7, 9), (6, 5), (1, 1, 1), (1, 1), (1, 6, 5)])
@pytest.mark.parametrize("fill", ["background", "foreground"])
@pytest.mark.parametrize("extreme", [1.0, 1e4])
def test_one_class_and_one_voxel_are_finite(term, kind, shape, fill, extreme, make_case):
    name, parameters = term
    logits, labels, common = make_case(kind, shape=shape, ignore=False, scale=extreme)
    labels = torch.full_like(labels, fill == "foreground")
    value, gradient = value_and_gradient(name, logits, labels, **common, **parameters)
    assert value.isfinite()
    assert gradient.isfinite().all()


def one_box_a_structure(labels, kind):
    labels = torch.zeros_like(labels)
    for structure, columns in enumerate((slice(0, 3), slice(3, 5))[: 1 if kind in ("binary", "two") else 2]):
        channel, member = (structure, True) if kind == "regions" else (0, structure + 1)
        labels[:, channel, 1:4, columns] = member
    return labels


@pytest.mark.parametrize("shape", [(5, 7, 9), (8, 5)])
def test_flips_and_axis_permutations_change_nothing(term, kind, shape, make_case):
    name, parameters = term
    logits, labels, common = make_case(kind, shape=shape)
    if name == "betti_matching":
        # Its engine orders features of equal value by their place: of the labels, where there is more than one.
        labels = one_box_a_structure(labels, kind)
    value, gradient = value_and_gradient(name, logits, labels, **common, **parameters)
    n = len(shape)
    for axis in range(2, 2 + n):
        flipped, its_gradient = value_and_gradient(name, logits.flip(axis), labels.flip(axis), **common, **parameters)
        assert flipped == pytest.approx(value.item(), abs=1e-6)
        torch.testing.assert_close(its_gradient.flip(axis), gradient)
    order = [1, 2, 0][:n] if n == 3 else [1, 0]
    axes = [0, 1, *(2 + axis for axis in order)]
    common["spacing"] = [common["spacing"][axis] for axis in order]
    permuted, its_gradient = value_and_gradient(
        name, logits.permute(axes), labels.permute(axes), **common, **parameters
    )
    assert permuted == pytest.approx(value.item(), abs=1e-6)
    torch.testing.assert_close(its_gradient, gradient.permute(axes))


def test_spacing_in_another_order_does_change_the_boundary(make_case):
    logits, labels, common = make_case("two", ignore=False, scale=1.0)
    labels.zero_()[:, :, 1:3, 2:4, 3:5] = 1
    common["spacing"] = (0.5, 1.0, 3.0)
    value = make_term("boundary", **common)(logits, labels)
    common["spacing"] = (3.0, 1.0, 0.5)
    assert abs(make_term("boundary", **common)(logits, labels) - value) > 1e-3


@pytest.mark.parametrize(("dtype", "rel"), [(torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_half_precision_costs_the_rounding_of_the_logits_and_no_more(term, kind, dtype, rel, make_case):
    name, parameters = term
    logits, labels, common = make_case(kind, shape=(9, 10, 11))
    value, _ = value_and_gradient(name, logits, labels, **common, **parameters)
    half, gradient = value_and_gradient(name, logits.to(dtype), labels, **common, **parameters)
    assert half.dtype == torch.float32
    assert gradient.dtype == dtype
    assert half.item() == pytest.approx(value.item(), rel=rel)
    rounded, its_gradient = value_and_gradient(name, logits.to(dtype).float(), labels, **common, **parameters)
    assert torch.equal(half, rounded)
    assert torch.equal(gradient, its_gradient.to(dtype))


def test_autocast_changes_nothing(term, kind, make_case):
    name, parameters = term
    logits, labels, common = make_case(kind)
    value, gradient = value_and_gradient(name, logits, labels, **common, **parameters)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, its_gradient = value_and_gradient(name, logits, labels, **common, **parameters)
    assert torch.equal(inside, value)
    assert torch.equal(its_gradient, gradient)


def test_large_float16_patch_overflows_nowhere():
    n = 128
    generator = torch.Generator().manual_seed(0)
    logits = (30 * torch.randn(1, 2, n, n, n, generator=generator)).half().requires_grad_()
    labels = torch.zeros(1, 1, n, n, n, dtype=torch.int16)
    labels[..., 40:90] = 1
    few = {"cldice": {"iterations": 3}, "cbdice": {"iterations": 1}}
    terms = {name: make_term(name, batch_dice=True, **few.get(name, {})) for name in TERMS}
    loss = CompoundLoss(terms, scale_weights=None)
    loss.set_weights(dict.fromkeys(TERMS, 1.0))
    distance = (torch.arange(n).float() - 64.5).abs().sub(25).half().expand(1, 1, n, n, n)
    middle = (distance < -24).to(torch.uint8)
    targets = {
        "signed_distance": distance,
        "skeleton": middle,
        "medial_surface": middle,
        "gap_surface": 1 - middle,
        "separation_barrier": 1 - middle,
    }
    total = loss(logits, [labels, *(targets[name] for name in loss.target_names)])
    (gradient,) = torch.autograd.grad(total * 1e4, logits)
    assert total.isfinite()
    assert gradient.isfinite().all()
    assert 0.4 < loss.values["dice"] < 0.7
    assert loss.values["cldice"] < 0.9999


@pytest.mark.parametrize("shape", [(3, 4, 5), (5, 4)])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_gradcheck(term, kind, shape, batch_dice, make_case):
    name, parameters = term
    logits, labels, common = make_case(kind, shape=shape, scale=1.0, dtype=torch.float64)
    settings = {**common, **parameters, "batch_dice": batch_dice}
    module = make_term(name, **settings)
    assert module(logits, labels).dtype == torch.float64
    assert torch.autograd.gradcheck(
        lambda logits: module(logits, labels), (logits.requires_grad_(),), atol=1e-6, fast_mode=True
    )


def test_modules_hold_neither_parameters_nor_buffers(term):
    name, parameters = term
    assert make_term(name, **parameters).state_dict() == {}
    assert not list(make_term(name, **parameters).parameters())


@pytest.mark.parametrize("ignore", [False, True])
def test_no_term_waits_for_the_device(term, kind, ignore, make_case):
    """A meta tensor has no contents: item(), bool(), nonzero() and the like fail."""
    name, parameters = term
    if name == "betti_matching":
        pytest.skip("its engine reads the values on the CPU, so a GPU waits for it, as its docstring says")
    logits, labels, common = make_case(kind, ignore=ignore)
    if name in ("ce", "focal"):
        parameters = {**parameters, "class_weights": [1.0] * (1 + (2 if kind in ("three", "regions") else 1))}
    structures = logits.shape[1] - (kind in ("two", "three"))
    targets = {name: torch.empty(2, structures, 5, 7, 9, device="meta", dtype=torch.float16) for name in LABEL_TARGETS}
    module = make_term(name, **common, **parameters, batch_dice=True)
    logits = logits.half().to("meta").requires_grad_()
    value = module(logits, labels.to("meta"), targets)
    value.backward()
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert logits.grad.shape == logits.shape


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32, torch.float16])
def test_labels_of_any_dtype(term, dtype, make_case):
    name, parameters = term
    logits, labels, common = make_case("three")
    module = make_term(name, **common, **parameters)
    assert torch.equal(module(logits, labels), module(logits, labels.to(dtype)))


def test_bool_and_number_regions_agree(term, make_case):
    name, parameters = term
    logits, labels, common = make_case("regions")
    module = make_term(name, **common, **parameters)
    assert torch.equal(module(logits, labels), module(logits, labels.to(torch.float32)))


def test_one_channel_equals_one_region(term, make_case):
    name, parameters = term
    logits, labels, common = make_case("binary")
    regions = torch.cat([labels == 1, labels == 2], 1)
    value = make_term(name, **common, **parameters)(logits, labels)
    common["regions"] = True
    assert torch.equal(make_term(name, **common, **parameters)(logits, regions), value)


def test_one_channel_equals_two_channels_with_a_background_of_zeros(term, make_case):
    name, parameters = term
    logits, labels, common = make_case("binary")
    module = make_term(name, **common, **parameters)
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    torch.testing.assert_close(module(two, labels), module(logits, labels))


def test_random_against_a_tube_is_bad_and_has_a_gradient_in_one_channel():
    tube = torch.zeros(1, 1, 24, 24, 24)
    tube[0, 0, :, 10:13, 10:13] = 1
    logits = torch.rand(tube.shape, generator=torch.Generator().manual_seed(0)).logit()
    for name in ("dice", "cldice"):
        value, gradient = value_and_gradient(name, logits, tube)
        assert value > 0.8
        assert gradient.abs().max() > 0


def test_missing_one_of_two_classes_costs_half():
    labels = torch.zeros(1, 1, 20, 20, 20, dtype=torch.int16)
    labels[0, 0, :, ::4, ::4] = 1
    labels[0, 0, 2, 2, :] = 2
    logits = torch.zeros(1, 3, 20, 20, 20)
    logits[0, 0][labels[0, 0] != 1] = 50
    logits[0, 1][labels[0, 0] == 1] = 50
    for name in ("dice", "cldice"):
        assert make_term(name)(logits, labels) == pytest.approx(0.5, abs=1e-3)


WRONG = [
    ((1, 2, 4, 5), (1, 1, 4, 6), {}, "labels: expected shape"),
    ((1, 2, 4, 5), (1, 2, 4, 5), {}, "labels: expected shape"),
    ((1, 2, 4, 5), (1, 4, 5), {}, "labels: expected shape"),
    ((2, 2, 4, 5), (1, 1, 4, 5), {}, "labels: expected shape"),
    ((1, 2, 4), (1, 1, 4), {}, "logits: expected floats of shape"),
    ((1, 2, 4, 5), (1, 3, 4, 5), {"regions": True}, "one-hot regions"),
    ((1, 2, 4, 5), (1, 2, 4, 5), {"regions": True, "ignore_label": 3}, "the ignored voxels last"),
    ((1, 2, 0, 5), (1, 1, 0, 5), {}, "at least one voxel"),
]


@pytest.mark.parametrize(("logits", "labels", "settings", "message"), WRONG)
def test_wrong_shapes_are_refused(term, logits, labels, settings, message):
    name, parameters = term
    with pytest.raises(ShapeError, match=message):
        make_term(name, **settings, **parameters)(torch.zeros(logits), torch.zeros(labels))


def test_integer_logits_are_refused():
    with pytest.raises(ShapeError, match="logits: expected floats"):
        make_term("dice")(torch.zeros(1, 2, 4, 5, dtype=torch.int64), torch.zeros(1, 1, 4, 5))


@pytest.mark.parametrize(("channels", "label"), [(1, 2), (2, 2), (2, -1), (3, 255)])
def test_labels_out_of_range_are_named(channels, label):
    labels = torch.zeros(1, 1, 4, 5, dtype=torch.int16)
    labels[0, 0, 1, 1] = label
    with pytest.raises(DataError, match=f"labels: expected values .*{label}"):
        make_term("ce")(torch.zeros(1, channels, 4, 5), labels)
    assert make_term("ce", ignore_label=label)(torch.zeros(1, channels, 4, 5), labels).isfinite()


def test_targets_of_another_shape_are_refused(make_case):
    logits, labels, common = make_case("three")
    with pytest.raises(ShapeError, match="signed_distance"):
        make_term("boundary", **common)(logits, labels, {"signed_distance": torch.zeros(2, 1, 5, 7, 9)})


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32])
def test_unsigned_labels_as_microscopes_write_them(dtype):
    logits = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 1, 0]).expand(1, 1, 4, 5)
    for name in TERMS:
        assert make_term(name)(logits, labels.to(dtype)) == make_term(name)(logits, labels)


def test_nan_in_a_float_label_map_is_refused():
    labels = torch.zeros(1, 1, 4, 4)
    labels[0, 0, 0, 0] = torch.nan
    with pytest.raises(DataError, match=r"values 0\.\.1, got nan"):
        make_term("ce")(torch.zeros(1, 2, 4, 4), labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_labels_between_two_classes_are_refused(dtype):
    """As a label map has them after linear interpolation; they would be in no structure."""
    labels = torch.zeros(1, 1, 4, 4, dtype=dtype)
    labels[0, 0, 1, 1] = 0.5
    with pytest.raises(DataError, match=r"values 0\.\.1, got fractions in 0\.0\.\.0\.5"):
        make_term("ce")(torch.zeros(1, 2, 4, 4), labels)
    labels[0, 0, 1, 1] = 1
    assert make_term("ce")(torch.zeros(1, 2, 4, 4), labels) > 0


@pytest.mark.parametrize("name", ["separation", "connectivity", "boundary", "skeleton_recall"])
@pytest.mark.parametrize("shape", [(6, 7), (5, 4, 6)])
def test_torch_compile_changes_no_value(name, shape):
    """It translates numpy, and wrongly where that writes through a reversed view: the targets must be kept from it."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, *shape, generator=generator)
    labels = torch.randint(0, 4, (2, 1, *shape), generator=generator)
    term = make_term(name, ignore_label=3)
    torch._dynamo.reset()
    assert torch.compile(term, backend="eager")(logits, labels).item() == pytest.approx(term(logits, labels).item())


@pytest.mark.parametrize("spacing", [1.0, "abc", (1, None, 1), (1, -1), (1,), (1, float("nan"))])
def test_bad_spacing_is_a_config_error(spacing):
    with pytest.raises(ConfigError, match="spacing: expected 2 or 3 voxel edges"):
        make_term("boundary", spacing=spacing)


@pytest.mark.parametrize("name", TERMS)
def test_spacing_of_another_number_of_axes_is_refused(name):
    with pytest.raises(ShapeError, match="spacing: expected 3 values"):
        make_term(name, spacing=(1, 2))(torch.zeros(1, 2, 4, 4, 4), torch.zeros(1, 1, 4, 4, 4))


@pytest.mark.parametrize("ignore_label", [2.5, True, "2"])
def test_ignore_label_is_a_whole_number(ignore_label):
    with pytest.raises(ConfigError, match="ignore_label"):
        make_term("ce", ignore_label=ignore_label)


def test_negative_ignore_label():
    logits, labels = torch.randn(1, 2, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.int16)
    labels[..., 0] = -1
    changed = logits.clone()
    changed[..., 0] = torch.nan
    term = make_term("ce", ignore_label=-1)
    assert term(logits, labels) == term(changed, labels)


def test_targets_of_another_name_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'signed_distance'"):
        make_term("boundary")(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4), {"signd_distance": torch.zeros(1)})
