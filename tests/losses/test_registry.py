import pytest

from nnunet_topo.errors import ConfigError
from nnunet_topo.losses import NNUNET_TERM, TERMS, check_parameters, make_term


def test_names():
    assert [*TERMS, *({"betti_matching"} - set(TERMS))] == [
        "ce",
        "dice",
        "focal",
        "tversky",
        "variance",
        "entropy",
        "boundary",
        "kervadec",
        "hausdorff",
        "cldice",
        "cbdice",
        "skeleton_recall",
        "medial_surface_recall",
        "connectivity",
        "separation",
        "scnp",
        "betti_matching",
    ]
    assert NNUNET_TERM not in TERMS


BAD = [
    ("dise", {}, "Did you mean 'dice'"),
    ("focal", {"gama": 1.0}, "Did you mean 'gamma'"),
    ("focal", {"alpha": 1.5}, r"losses.focal.alpha: expected a number >= 0 and <= 1, got 1.5"),
    ("focal", {"alpha": "0.5"}, "alpha"),
    ("focal", {"alpha": True}, "alpha"),
    ("focal", {"gamma": -1}, "gamma: expected a number >= 0"),
    ("focal", {"gamma": float("nan")}, "gamma"),
    ("focal", {"gamma": 10**400}, "gamma"),
    ("focal", {"class_weights": [1]}, "class_weights"),
    ("ce", {"class_weights": [1, -2]}, "class_weights: expected a list of numbers >= 0"),
    ("ce", {"class_weights": "12"}, "class_weights"),
    ("ce", {"class_weights": [0, 0]}, "class_weights"),
    ("dice", {"smooth": 0}, "smooth: expected a number > 0"),
    ("variance", {"form": "legasy"}, "form: expected one of hinge, legacy"),
    ("entropy", {"floor": -0.1}, "floor"),
    ("boundary", {"inner": 5.0}, "outer: expected a number > 5"),
    ("boundary", {"inner": -1.0}, "inner"),
    ("cldice", {"iterations": 0}, "iterations: expected a whole number >= 1"),
    ("cldice", {"iterations": 2.5}, "iterations"),
    ("cldice", {"sharpness": 0.5}, "sharpness"),
    ("cldice", {"iterations": "auto"}, "iterations"),
    ("cbdice", {"iterations": 0}, "iterations: expected a whole number >= 1"),
    ("skeleton_recall", {"tube": -1}, "tube: expected a whole number >= 0"),
    ("skeleton_recall", {"beta": 0}, "beta: expected a number > 0"),
    ("medial_surface_recall", {"tub": 1}, "Did you mean 'tube'"),
    ("tversky", {"alpha": -0.1}, "alpha: expected a number >= 0"),
    ("tversky", {"alpha": 0, "beta": 0}, "beta: expected a number > 0"),
    ("tversky", {"gamma": 0}, "gamma: expected a number > 0"),
    ("kervadec", {"alpha": 1.0}, "expected no parameters|got 'alpha'"),
    ("hausdorff", {"alpha": 0}, "alpha: expected a number > 0 and <= 4"),
    ("connectivity", {"kernel_size": 4}, "kernel_size: expected an odd number"),
    ("connectivity", {"kernel_size": 1}, "kernel_size"),
    ("connectivity", {"form": "diary"}, "form: expected one of weakest_link, legacy"),
    ("connectivity", {"power": 0.5}, "power: expected a number >= 1"),
    ("separation", {"powr": 2}, "Did you mean 'power'"),
    ("betti_matching", {"size": 1}, "size: expected a whole number >= 2"),
    ("betti_matching", {"patches": 0}, "patches: expected a whole number >= 1"),
    ("betti_matching", {"seed": -1}, "seed"),
    ("scnp", {"radius": 0}, "radius: expected a whole number >= 1"),
    ("scnp", {"scnp": 1}, "got 'scnp'"),
    ("dice", {"scnp": -1}, "scnp: expected a whole number >= 0"),
    ("dice", {"scnp": 1.5}, "scnp"),
    ("mine", {"class": "no colon"}, "class: expected 'package.module:Name'"),
    ("mine", {"class": 3}, "class"),
]


@pytest.mark.parametrize(("name", "parameters", "message"), BAD)
def test_bad_parameters_are_named(name, parameters, message):
    with pytest.raises(ConfigError, match=message) as error:
        check_parameters(name, parameters, "my_recipe.yaml")
    assert "my_recipe.yaml" in str(error.value)
    with pytest.raises(ConfigError, match=message):
        make_term(name, **parameters)


def test_settings_of_make_term_are_not_parameters_of_a_recipe():
    with pytest.raises(ConfigError, match="got 'batch_dice'"):
        check_parameters("focal", {"batch_dice": True}, "here")


GOOD = [
    ("ce", {"class_weights": [1, 2.0, 3]}),
    ("ce", {"class_weights": None}),
    ("dice", {"smooth": 1}),
    ("focal", {"alpha": 0.4, "gamma": 2.0, "class_weights": [2.94, 1.52]}),
    ("focal", {"alpha": None}),
    ("variance", {"form": "legacy"}),
    ("entropy", {"floor": 0}),
    ("boundary", {"inner": 3, "outer": 5}),
    ("cldice", {"iterations": 10, "smooth": 1.0, "sharpness": 1}),
    ("connectivity", {"form": "legacy", "kernel_size": 5}),
    ("connectivity", {"power": 2}),
    ("separation", {"power": 1}),
    ("scnp", {"radius": 2}),
    ("betti_matching", {"size": 16, "patches": 2, "seed": 3, "power": 2}),
    ("dice", {"scnp": True}),
    ("cldice", {"scnp": 2}),
    ("ce", {"scnp": False}),
    ("cldice", {"iterations": None}),
    ("cbdice", {"iterations": 3, "sharpness": 1}),
    ("skeleton_recall", {"tube": 0, "beta": 2}),
    ("medial_surface_recall", {"tube": 2}),
    ("tversky", {"alpha": 0, "beta": 1, "gamma": 0.75}),
    ("kervadec", {}),
    ("hausdorff", {"alpha": 1.5}),
]


@pytest.mark.parametrize(("name", "parameters"), GOOD)
def test_good_parameters_pass(name, parameters):
    check_parameters(name, parameters, "here")
    make_term(name, **parameters)


def test_nnunet_term_passes_the_check_without_parameters_only():
    check_parameters(NNUNET_TERM, {}, "here")
    with pytest.raises(ConfigError, match=r"losses.nnunet: expected no parameters, got 'smooth'. here"):
        check_parameters(NNUNET_TERM, {"smooth": 1}, "here")
    with pytest.raises(ConfigError, match="got 'class'"):
        check_parameters(NNUNET_TERM, {"class": "my_pkg.mine:Loss"}, "here")
    with pytest.raises(ConfigError, match="only a trainer"):
        make_term(NNUNET_TERM)


def test_own_terms_pass_the_check_without_being_imported():
    check_parameters("mine", {"class": "does_not.exist:Loss", "anything": 1}, "here")


@pytest.mark.parametrize("spacing", [(1,), (1, 1, 0), (1, -1), (1, 1, 1, 1), (1, float("inf"))])
def test_wrong_spacing_is_refused(spacing):
    with pytest.raises(ConfigError, match="spacing"):
        make_term("boundary", spacing=spacing)
