import argparse
import json

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_topo.cli import plan as command
from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.recipe import load_recipe, recipe_from_mapping

DATASET = "Dataset099_Test"


def architecture(axes):
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 4,
            "features_per_stage": [8, 16, 32, 64],
            "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
            "kernel_sizes": [[3] * axes] * 4,
            "strides": [[1] * axes, *[[2] * axes] * 3],
            "n_conv_per_stage": [2] * 4,
            "n_conv_per_stage_decoder": [2] * 3,
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


def configuration(name, axes):
    return {
        "data_identifier": f"nnUNetPlans_{name}",
        "batch_size": 2,
        "patch_size": [64] * axes,
        "median_image_size_in_voxels": [64.0] * axes,
        "architecture": architecture(axes),
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "preprocessed" / DATASET
    for name in ("nnUNetPlans_2d", "nnUNetPlans_3d_fullres"):
        (folder / name).mkdir(parents=True)
    plans = {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "configurations": {"2d": configuration("2d", 2), "3d_fullres": configuration("3d_fullres", 3)},
    }
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "sheet": 1}, "file_ending": ".tif"}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return folder


def run(*argv):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["plan", *map(str, argv)])
    return arguments.run(arguments)


def test_writes_a_file_that_nnunet_reads(folder, capsys):
    assert run("-d", 99, "-r", "progressive", "-c", "3d_fullres", "--set", "network.patch_size=[32,32,32]",
               "network.features=4", "--set", "epochs=20") == 0  # fmt: skip
    path = folder / "nnUNetPlans_progressive.json"
    plans = json.loads(path.read_text())
    assert plans["plans_name"] == path.stem
    settings = PlansManager(plans).get_configuration("3d_fullres")
    assert settings.patch_size == [32, 32, 32]
    assert settings.data_identifier == "nnUNetPlans_3d_fullres"
    recipe = recipe_from_mapping(plans["nnunet_topo"]["recipe"], "plans")
    overrides = ["network.patch_size=[32,32,32]", "network.features=4", "epochs=20"]
    assert recipe == load_recipe("progressive").with_overrides(overrides)
    out = capsys.readouterr().out
    assert "3d_fullres: patch size [64, 64, 64] -> [32, 32, 32]" in out
    assert "GPU memory about" in out
    assert "nnU-Net's estimate" in out
    assert f"wrote {path}" in out
    assert f"next: nnUNetv2_train {DATASET} 3d_fullres 0 -tr nnUNetTrainerTopo -p nnUNetPlans_progressive" in out


def test_json_report(folder, capsys):
    assert run("-d", DATASET, "-r", "nnunet", "--set", "network.batch_size=4", "name=mine", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["file"] == str(folder / "nnUNetPlans_mine.json")
    before, after = report["memory_gb"]["3d_fullres"]
    assert after == pytest.approx(2 * before)
    assert report["next"].endswith("3d_fullres 0 -tr nnUNetTrainerTopo -p nnUNetPlans_mine")
    assert "2d: batch size 2 -> 4" in report["notes"]


def test_recipe_file_of_ones_own(folder, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("name: own\nphases: [{from: 0, weights: {ce: 1}}]\n")
    assert run("-d", 99, "-r", path) == 0
    assert (folder / "nnUNetPlans_own.json").is_file()


def test_patch_of_other_dimensionality_is_said(folder, capsys):
    assert run("-d", 99, "-r", "v8_dice_only") == 0
    captured = capsys.readouterr()
    assert "warning: 2d: patch size [128, 128, 128] left out" in captured.err
    assert "refuse to start" not in captured.err
    assert (
        "warning: 3d_fullres: patch size [128, 128, 128] is larger than the median image [64, 64, 64]" in captured.err
    )


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (("-d", 98, "-r", "nnunet"), "got '98'"),
        (("-d", "surface", "-r", "nnunet"), "got 'surface'"),
        (("-d", 99, "-r", "nnunett"), "Did you mean 'nnunet'"),
        (("-d", 99, "-r", "nnunet", "-p", "nnUNetPlan"), "Did you mean 'nnUNetPlans'"),
        (("-d", 99, "-r", "nnunet", "-c", "3d_full"), "Did you mean '3d_fullres'"),
        (
            ("-d", 99, "-r", "nnunet", "--set", "network.patch_size=[30,32,32]", "-c", "3d_fullres"),
            "[28, 32, 32] or [32, 32, 32]",
        ),
        (("-d", 99, "-r", "nnunet", "--set", "network.patch=[32,32,32]"), "Did you mean 'patch_size'"),
        (("-d", 99, "-r", "nnunet", "--set", "batch_size=3"), "unknown key"),
    ],
)
def test_errors_write_nothing(folder, argv, part):
    with pytest.raises(ConfigError) as caught:
        run(*argv)
    assert part in str(caught.value)
    assert len(list(folder.glob("*.json"))) == 2


def damaged_plans(change):
    return "nnUNetPlans.json", lambda plans: change(plans["configurations"])


@pytest.mark.parametrize(
    ("file", "change", "part"),
    [
        (*damaged_plans(dict.clear), "nnU-Net plans with configurations"),
        (*damaged_plans(lambda found: found.update({"2d": "x"})), "2d: expected a mapping"),
        (*damaged_plans(lambda found: found["2d"].pop("architecture")), "expected architecture"),
        (*damaged_plans(lambda found: found["2d"].pop("patch_size")), "expected patch_size"),
        (*damaged_plans(lambda found: found["2d"].pop("batch_size")), "expected batch_size"),
        (*damaged_plans(lambda found: found.update({"x": {"inherits_from": "y"}})), "inherits_from"),
        (
            *damaged_plans(lambda found: found.update(x={"inherits_from": "y"}, y={"inherits_from": "x"})),
            "inherits_from",
        ),
        ("dataset.json", None, "dataset.json: expected a JSON object, got list"),
        ("dataset.json", lambda content: content.pop("labels"), "labels: expected a mapping"),
        ("dataset.json", lambda content: content.update(labels={"background": "0"}), "expected an integer"),
        ("dataset.json", lambda content: content.pop("file_ending"), "file_ending: expected a text"),
        ("dataset.json", lambda content: content.update(channel_names=["CT"]), "channel_names: expected a mapping"),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans")
def test_damaged_files_are_named(folder, file, change, part):
    content = json.loads((folder / file).read_text())
    if change is not None:
        change(content)
    (folder / file).write_text(json.dumps([] if change is None else content))
    with pytest.raises(DataError, match=part) as caught:
        run("-d", 99, "-r", "nnunet")
    assert "lan the dataset again" in str(caught.value) or str(folder / file) in str(caught.value)
    assert len(list(folder.glob("*.json"))) == 2


def test_unset_variable(folder, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed")
    with pytest.raises(ConfigError, match="nnUNet_preprocessed: expected a folder"):
        run("-d", 99, "-r", "nnunet")


def test_data_must_be_preprocessed(folder, capsys):
    (folder / "nnUNetPlans_2d").rmdir()
    assert run("-d", 99, "-r", "nnunet") == 0
    assert "warning: 2d: not preprocessed yet" in capsys.readouterr().err
    with pytest.raises(
        ConfigError, match=r"none for 2d.*nnUNetv2_preprocess -d Dataset099_Test -plans_name nnUNetPlans -c 2d"
    ):
        run("-d", 99, "-r", "nnunet", "-c", "2d")
    (folder / "nnUNetPlans_3d_fullres").rmdir()
    with pytest.raises(ConfigError, match="none for 2d, 3d_fullres"):
        run("-d", 99, "-r", "nnunet")


def test_a_trained_models_plans_are_kept(folder, tmp_path):
    assert run("-d", 99, "-r", "nnunet") == 0
    fold = tmp_path / "results" / DATASET / "nnUNetTrainerTopo__nnUNetPlans_nnunet__3d_fullres" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_best.pth").touch()
    assert run("-d", 99, "-r", "nnunet") == 0
    with pytest.raises(ConfigError, match="--set name="):
        run("-d", 99, "-r", "nnunet", "--set", "epochs=3")
    assert run("-d", 99, "-r", "nnunet", "--set", "epochs=3", "name=nnunet_short") == 0
