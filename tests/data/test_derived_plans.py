import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_topo.data.derived_plans import (
    derive_plans,
    preprocessed_dataset,
    read_plans,
    stages_for_patch,
    write_derived_plans,
)
from nnunet_topo.data.memory_estimate import estimated_memory_gb
from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.recipe import load_recipe, recipe_from_mapping

DATASET_JSON = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "sheet": 1}, "file_ending": ".tif"}


def architecture(axes, widths, strides, *, residual=False):
    stages = len(widths)
    blocks = {"n_blocks_per_stage": [1, 3, 4, 6, 6, 6][:stages]} if residual else {"n_conv_per_stage": [2] * stages}
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": widths,
            "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
            "kernel_sizes": [[3] * axes] * stages,
            "strides": strides,
            **blocks,
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(identifier, patch, widths, strides, *, batch=2, median=None, residual=False):
    return {
        "data_identifier": identifier,
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": batch,
        "patch_size": patch,
        "median_image_size_in_voxels": median or patch,
        "spacing": [1.0] * len(patch),
        "batch_dice": False,
        "architecture": architecture(len(patch), widths, strides, residual=residual),
    }


def example_plans(*, residual=False):
    """2d, and an anisotropic 3-D cascade; strides of the last stage act on two axes only."""
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]
    fullres = configuration(
        "nnUNetPlans_3d_fullres", [16, 64, 64], [8, 16, 32, 40, 40], strides, median=[20, 80, 80], residual=residual
    )
    lowres = configuration("nnUNetPlans_3d_lowres", [16, 64, 64], [8, 16, 32, 40, 40], strides, residual=residual)
    return {
        "dataset_name": "Dataset099_Test",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "experiment_planner_used": "ExperimentPlanner",
        "configurations": {
            "2d": configuration(
                "nnUNetPlans_2d",
                [64, 64],
                [8, 16, 32, 64],
                [[1, 1], [2, 2], [2, 2], [2, 2]],
                batch=12,
                residual=residual,
            ),
            "3d_lowres": {**lowres, "next_stage": "3d_cascade_fullres"},
            "3d_fullres": fullres,
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
    }


def derive(plans=None, configurations=None, name="nnUNetPlans_mine", **network):
    settings = {"name": "mine", "phases": [{"from": 0, "weights": {"dice": 1}}], "network": network}
    recipe = recipe_from_mapping(settings, "mine.yaml")
    return derive_plans(plans or example_plans(), recipe, name=name, configurations=configurations)


def resolved(plans, name):
    return PlansManager(copy.deepcopy(plans)).get_configuration(name)


def forward(plans, name, channels=1, classes=2):
    """Output sizes of the configuration's network on a patch."""
    config = resolved(plans, name)
    network = get_network_from_plans(
        config.network_arch_class_name,
        config.network_arch_init_kwargs,
        config.network_arch_init_kwargs_req_import,
        channels,
        classes,
        deep_supervision=True,
    )
    with torch.no_grad():
        return [tuple(output.shape[2:]) for output in network(torch.zeros(1, channels, *config.patch_size))]


def test_without_overrides_only_name_and_section_are_added():
    plans = example_plans()
    derived = derive(plans).plans
    assert derived["plans_name"] == "nnUNetPlans_mine"
    assert recipe_from_mapping(derived["nnunet_topo"]["recipe"], "plans").name == "mine"
    for name in plans["configurations"]:
        expected = resolved(plans, name).configuration
        assert resolved(derived, name).configuration == expected
        # spelt out, so that no rule about names is needed to find the data
        assert derived["configurations"][name]["data_identifier"] == expected["data_identifier"]
    assert plans == example_plans()
    assert "nnunet_topo" not in plans


def test_result_is_json_and_the_recipe_in_it_round_trips():
    recipe = load_recipe("v9_progressive")
    derived = derive_plans(example_plans(), recipe, name="nnUNetPlans_v9_progressive", configurations=["2d"]).plans
    content = json.loads(json.dumps(derived))
    assert content == derived
    assert recipe_from_mapping(content["nnunet_topo"]["recipe"], "plans") == recipe


@pytest.mark.parametrize("residual", [False, True])
def test_overrides_build_networks_that_run(residual):
    plans = example_plans(residual=residual)
    derived = derive(plans, batch_size=3, patch_size=[8, 32, 32], features=4).plans
    for name in ("3d_fullres", "3d_lowres", "3d_cascade_fullres"):
        config = resolved(derived, name)
        assert config.batch_size == 3
        assert config.patch_size == [8, 32, 32]
        arguments = config.network_arch_init_kwargs
        # 8 / (2 * 2) = 2 voxels are too few: one stage of axis 0 has to go, and with it all behind it
        assert arguments["n_stages"] == 3
        assert arguments["strides"] == [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
        assert arguments["features_per_stage"] == [4, 8, 16]
        assert forward(derived, name) == [(8, 32, 32), (8, 16, 16)]
        assert config.data_identifier == resolved(plans, name).data_identifier
    assert derived["configurations"]["3d_cascade_fullres"]["previous_stage"] == "3d_lowres"
    assert derived["configurations"]["3d_cascade_fullres"]["inherits_from"] == "3d_fullres"
    assert derived["configurations"]["3d_lowres"]["next_stage"] == "3d_cascade_fullres"
    # a whole block in each: nnU-Net's inheritance replaces `architecture`, it does not merge it
    assert set(derived["configurations"]["3d_cascade_fullres"]["architecture"]) == {
        "network_class_name", "arch_kwargs", "_kw_requires_import",
    }  # fmt: skip


def test_a_patch_acts_only_on_configurations_with_as_many_axes():
    derived = derive(batch_size=4, patch_size=[16, 32, 32])
    config = resolved(derived.plans, "2d")
    assert config.patch_size == [64, 64]
    assert config.batch_size == 4
    assert any(warning.startswith("2d: patch size [16, 32, 32] left out") for warning in derived.warnings)
    flat = derive(patch_size=[32, 32])
    assert resolved(flat.plans, "2d").patch_size == [32, 32]
    assert resolved(flat.plans, "3d_fullres").patch_size == [16, 64, 64]
    assert forward(flat.plans, "2d") == [(32, 32), (16, 16), (8, 8)]


def test_only_named_configurations_change_even_where_others_inherit():
    plans = example_plans()
    derived = derive(plans, configurations=["3d_fullres"], batch_size=5, patch_size=[16, 32, 32], features=4).plans
    assert resolved(derived, "3d_fullres").batch_size == 5
    for name in ("2d", "3d_lowres", "3d_cascade_fullres"):
        assert resolved(derived, name).configuration == resolved(plans, name).configuration
    derived = derive(plans, configurations=["3d_cascade_fullres"], batch_size=5).plans
    assert resolved(derived, "3d_cascade_fullres").batch_size == 5
    assert resolved(derived, "3d_fullres").batch_size == 2


@pytest.mark.parametrize(
    ("features", "widths"),
    [(4, [4, 8, 16, 32, 40]), (16, [16, 32, 40, 40, 40]), (40, [40] * 5), (1, [1, 2, 4, 8, 16])],
)
def test_features_double_up_to_the_originals_widest(features, widths):
    derived = derive(features=features).plans
    assert resolved(derived, "3d_fullres").network_arch_init_kwargs["features_per_stage"] == widths
    assert resolved(derived, "3d_fullres").patch_size == [16, 64, 64]


@pytest.mark.parametrize(
    ("network", "part"),
    [
        ({"features": 41}, "network.features: expected at most 40"),
        ({"patch_size": [16, 64, 60]}, "Nearest valid sizes: [16, 64, 56] or [16, 64, 64]."),
        ({"patch_size": [15, 64, 64]}, "Nearest valid sizes: [14, 64, 64] or [16, 64, 64]."),
        ({"patch_size": [16, 2, 64]}, "Nearest valid sizes: [16, 16, 64]."),
    ],
)
def test_impossible_overrides_name_the_nearest_valid(network, part):
    with pytest.raises(ConfigError) as caught:
        derive(configurations=["3d_fullres"], **network)
    assert part in str(caught.value)
    assert "3d_fullres" in str(caught.value)


@settings(max_examples=50)
@example((29, 29, 29))  # rounded up it keeps a stage more
@given(st.tuples(*[st.integers(1, 200)] * 3))
def test_suggested_patch_sizes_are_valid(patch):
    plans = example_plans()
    try:
        derived = derive(plans, configurations=["3d_fullres"], patch_size=list(patch))
    except ConfigError as error:
        shown = str(error).partition("Nearest valid sizes: ")[2].rstrip(".")
        for suggestion in map(json.loads, shown.split(" or ")):
            assert all(abs(new - old) <= 16 for new, old in zip(suggestion, patch, strict=True))
            derive(plans, configurations=["3d_fullres"], patch_size=suggestion)
        return
    arguments = resolved(derived.plans, "3d_fullres").network_arch_init_kwargs
    totals = np.prod(arguments["strides"], axis=0)
    assert arguments["n_stages"] == len(arguments["features_per_stage"]) == len(arguments["strides"]) >= 3
    assert len(arguments["n_conv_per_stage"]) == len(arguments["kernel_sizes"]) == arguments["n_stages"]
    assert len(arguments["n_conv_per_stage_decoder"]) == arguments["n_stages"] - 1
    assert all(
        size % total == 0 and (total == 1 or size // total >= 4) for size, total in zip(patch, totals, strict=True)
    )


def test_stages():
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]
    assert stages_for_patch([16, 64, 64], strides) == 5
    assert stages_for_patch([16, 63, 64], strides) == 4
    assert stages_for_patch([8, 64, 64], strides) == 3
    assert stages_for_patch([1, 1, 1], strides) == 3
    # an axis that is never pooled may be thin
    assert stages_for_patch([2, 16, 16], [[1, 1, 1], [1, 2, 2], [1, 2, 2]]) == 3
    assert stages_for_patch([1, 1], [[1, 1], [2, 2]]) == 2


def test_patch_larger_than_the_median_image_is_a_warning():
    assert any("larger than the median image [20, 80, 80]" in text for text in derive(patch_size=[32, 64, 64]).warnings)
    warnings = derive(configurations=["3d_fullres"], patch_size=[16, 64, 64]).warnings
    assert warnings == ()


def test_notes_say_what_really_changed():
    derived = derive(configurations=["3d_fullres"], batch_size=2, patch_size=[8, 32, 32], features=4)
    assert derived.notes == (
        "3d_fullres: patch size [16, 64, 64] -> [8, 32, 32], 2 of 5 stages dropped",
        "3d_fullres: features [8, 16, 32, 40, 40] -> [4, 8, 16]",
    )
    assert derive(configurations=["3d_fullres"], batch_size=2, patch_size=[16, 64, 64], features=8).notes == ()


def test_unknown_configuration_names_the_nearest():
    with pytest.raises(ConfigError, match=r"got '3d_fulres'.*Did you mean '3d_fullres'"):
        derive(configurations=["3d_fulres"])


@pytest.mark.parametrize("name", ["nnUNetPlans__mine", "nnUNetPlans_"])
def test_name_that_nnunet_would_split(name):
    with pytest.raises(ConfigError, match="'__'"):
        derive(name=name)


def test_architecture_without_stages_takes_a_batch_size_only():
    plans = example_plans()
    plans["configurations"] = {"3d_fullres": plans["configurations"]["3d_fullres"]}
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"] = {"embed_dim": 396}
    assert resolved(derive(plans, batch_size=1).plans, "3d_fullres").batch_size == 1
    for network in ({"patch_size": [16, 32, 32]}, {"features": 4}):
        with pytest.raises(ConfigError, match="Override the batch size alone"):
            derive(plans, **network)


def test_deriving_from_derived_plans_replaces_the_recipe():
    first = derive(batch_size=7).plans
    second = derive(first, name="nnUNetPlans_mine_again", features=4).plans
    assert second["nnunet_topo"]["recipe"]["network"] == {"batch_size": None, "patch_size": None, "features": 4}
    assert resolved(second, "3d_fullres").batch_size == 7
    assert resolved(second, "3d_fullres").data_identifier == "nnUNetPlans_3d_fullres"


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def preprocessed(tmp_path):
    folder = tmp_path / "Dataset099_Test"
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps(example_plans()))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return tmp_path


def test_datasets_and_plans_are_found(preprocessed):
    folder = preprocessed / "Dataset099_Test"
    for dataset in (99, "99", "099", "Dataset099_Test"):
        assert preprocessed_dataset(preprocessed, dataset) == folder
    assert read_plans(folder, "nnUNetPlans") == example_plans()
    with pytest.raises(ConfigError, match=r"got '98'.*Run 'nnUNetv2_plan_and_preprocess -d 98'.*Dataset099_Test"):
        preprocessed_dataset(preprocessed, 98)
    with pytest.raises(ConfigError, match=r"got 'nnUNetPlan'.*Did you mean 'nnUNetPlans'"):
        read_plans(folder, "nnUNetPlan")
    with pytest.raises(DataError, match="nnU-Net plans with configurations"):
        read_plans(folder, "dataset")


def test_write_and_overwrite(preprocessed, tmp_path):
    folder, results = preprocessed / "Dataset099_Test", tmp_path / "results"
    path = write_derived_plans(derive(), folder, results)
    assert path == folder / "nnUNetPlans_mine.json"
    assert json.loads(path.read_text()) == derive().plans
    write_derived_plans(derive(batch_size=3), folder, results)
    assert json.loads(path.read_text())["configurations"]["3d_fullres"]["batch_size"] == 3
    fold = results / "Dataset099_Test" / "nnUNetTrainerTopo__nnUNetPlans_mine__3d_fullres" / "fold_0"
    fold.mkdir(parents=True)
    write_derived_plans(derive(), folder, results)  # a folder without a checkpoint is no model
    (fold / "checkpoint_latest.pth").touch()
    write_derived_plans(derive(), folder, results)  # same content
    with pytest.raises(ConfigError, match=r"a model was trained with.*--set name="):
        write_derived_plans(derive(batch_size=3), folder, results)
    assert json.loads(path.read_text()) == derive().plans
    write_derived_plans(derive(batch_size=3), folder, None)
    assert [file.name for file in folder.iterdir() if "tmp" in file.name] == []


def test_plans_of_nnunet_are_never_replaced(preprocessed):
    folder = preprocessed / "Dataset099_Test"
    before = (folder / "nnUNetPlans.json").read_text()
    with pytest.raises(ConfigError, match="one of nnU-Net"):
        write_derived_plans(derive(name="nnUNetPlans"), folder, None)
    assert (folder / "nnUNetPlans.json").read_text() == before


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_scales_with_batch_and_counts_cascade_inputs():
    plans = example_plans()
    single = estimated_memory_gb(plans, "3d_fullres", DATASET_JSON)
    assert single == pytest.approx(estimated_memory_gb(derive(batch_size=6).plans, "3d_fullres", DATASET_JSON) / 3)
    assert estimated_memory_gb(derive(patch_size=[8, 32, 32]).plans, "3d_fullres", DATASET_JSON) < single / 4
    assert estimated_memory_gb(plans, "3d_cascade_fullres", DATASET_JSON) > 0
    assert plans == example_plans()


def test_memory_of_a_network_that_is_not_installed_is_unknown():
    plans = example_plans()
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = "absent_package.networks.Net"
    assert estimated_memory_gb(plans, "2d", DATASET_JSON) is None


# --- against plans that nnU-Net's own planners make -------------------------------------------------------------------


@pytest.fixture(scope="module", params=["ExperimentPlanner", "nnUNetPlannerResEncM"])
def planner(request, tmp_path_factory):
    """A planner that has planned, from a hand-written fingerprint, which is all that it reads."""
    import tifffile
    from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners

    root = tmp_path_factory.mktemp("nnunet")
    raw, folder = root / "raw" / "Dataset099_Test", root / "preprocessed" / "Dataset099_Test"
    folder.mkdir(parents=True)
    for part, ending in (("imagesTr", "_0000.tif"), ("labelsTr", ".tif")):
        (raw / part).mkdir(parents=True)
        for case in ("a", "b", "c"):
            tifffile.imwrite(raw / part / f"{case}{ending}", np.zeros((4, 4, 4), np.uint8))
    (raw / "dataset.json").write_text(json.dumps({**DATASET_JSON, "numTraining": 3}))
    intensities = {"max": 1, "mean": 0, "median": 0, "min": 0, "percentile_00_5": 0, "percentile_99_5": 1, "std": 1}
    fingerprint = {
        "spacings": [[3.0, 1.0, 1.0]] * 3,
        "shapes_after_crop": [[40, 96, 96]] * 3,
        "foreground_intensity_properties_per_channel": {"0": intensities},
        "median_relative_size_after_cropping": 1.0,
    }
    (folder / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    modules = (default_experiment_planner, residual_encoder_unet_planners)
    made = next(getattr(module, request.param) for module in modules if hasattr(module, request.param))
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{variable}", str(root / variable))
        planner = made(99)
        planner.plan_experiment()
    planner.folder = folder
    return planner


def test_derived_plans_work_in_nnunet(planner):
    plans = read_plans(planner.folder, planner.plans_identifier)
    original = resolved(plans, "3d_fullres")
    derived = derive(plans, patch_size=[16, 32, 32], batch_size=1, features=4).plans
    config = resolved(derived, "3d_fullres")
    # of the residual planners' plans too, whose name has nothing to do with that of their data
    assert config.data_identifier == original.data_identifier == "nnUNetPlans_3d_fullres"
    assert len(config.network_arch_init_kwargs["strides"]) < len(original.network_arch_init_kwargs["strides"])
    assert forward(derived, "3d_fullres")[0] == (16, 32, 32)
    assert resolved(derived, "2d").data_identifier == resolved(plans, "2d").data_identifier


def test_memory_is_the_planners_own_rule(planner):
    plans = read_plans(planner.folder, planner.plans_identifier)
    for configuration in ("2d", "3d_fullres"):
        config = resolved(plans, configuration)
        estimate = planner.static_estimate_VRAM_usage(
            tuple(config.patch_size), 1, 2, config.network_arch_class_name,
            config.network_arch_init_kwargs, config.network_arch_init_kwargs_req_import,
        )  # fmt: skip
        flat = configuration == "2d"
        reference = planner.UNet_reference_val_2d if flat else planner.UNet_reference_val_3d
        batch = planner.UNet_reference_val_corresp_bs_2d if flat else planner.UNet_reference_val_corresp_bs_3d
        expected = planner.UNet_reference_val_corresp_GB * estimate * config.batch_size / (reference * batch)
        assert estimated_memory_gb(plans, configuration, DATASET_JSON) == pytest.approx(expected)
