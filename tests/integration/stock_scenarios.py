"""The chains of commands that users run: from raw data to predictions, on real and on synthetic datasets."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from stock_datasets import (
    PLANS,
    RealDataset,
    add_cascade,
    read_json,
    take_dataset,
    training_cases,
    write_regions_dataset,
    write_two_folds,
)
from stock_harness import Bench
from stock_training import (
    OURS,
    PHASES,
    SETTINGS,
    STOCK,
    Model,
    check_journal,
    check_validation,
    epoch_lines,
    expect_files,
    journal_lines,
    read_checkpoint,
    train,
    train_killed,
    train_until,
)

WORKERS = ("-npp", 1, "-nps", 1, "-device", "cpu")


# --------------------------------------------------------------------------------------------------------- building


def preprocess(bench: Bench, dataset: str, configuration: str) -> None:
    """Check, plan and preprocess a raw dataset, check again, and write two folds."""
    number = int(dataset[7:10])
    bench.run(dataset, "nnunet-topo check, raw", "nnunet-topo", "check", "-d", number)
    command = ("nnUNetv2_plan_and_preprocess", "-d", number, "--verify_dataset_integrity", "-c", configuration)
    bench.run(dataset, "nnUNetv2_plan_and_preprocess", *command, "-np", 1, "-npfp", 1)
    bench.run(dataset, "nnunet-topo check, preprocessed", "nnunet-topo", "check", "-d", number)
    write_two_folds(bench.preprocessed / dataset, training_cases(bench.raw / dataset))


def plan(
    bench: Bench,
    dataset: str,
    recipe: str,
    patch_size: Sequence[int],
    configuration: str | None = None,
    settings: Sequence[str] = (),
) -> str:
    """Write the tiny plans of a recipe with `nnunet-topo plan`; returns their name."""
    chosen = ("-c", configuration) if configuration else ()
    sizes = ",".join(str(size) for size in patch_size)
    overrides = [*SETTINGS, f"network.patch_size=[{sizes}]", *settings]
    sets = [word for override in overrides for word in ("--set", override)]
    number = int(dataset[7:10])
    bench.run(dataset, f"nnunet-topo plan, {recipe}", "nnunet-topo", "plan", "-d", number, "-r", recipe, *chosen, *sets)
    name = f"{PLANS}_{recipe}"
    with bench.check(dataset, f"plans file {name}"):
        plans = read_json(bench.preprocessed / dataset / f"{name}.json")
        assert plans["plans_name"] == name, plans["plans_name"]
        for key in (configuration,) if configuration else plans["configurations"]:
            found = plans["configurations"][key].get("patch_size", patch_size)
            assert len(found) != len(patch_size) or list(found) == list(patch_size), f"{key}: patch size {found}"
    return name


def predict(bench: Bench, model: Model, images: Path, folds: Sequence[object], *options: object, step: str) -> Path:
    """Predict a folder; returns the folder of segmentations, which is looked through."""
    output = bench.work / "predictions" / model.dataset / step.replace(" ", "_").replace(",", "")
    arguments = ("-i", images, "-o", output, *model.selection(), "-f", *folds, *WORKERS, *options)
    bench.run(model.dataset, step, "nnUNetv2_predict", *arguments)
    check_predictions(bench, model.dataset, step, images, output)
    return output


def check_predictions(bench: Bench, dataset: str, step: str, images: Path, output: Path) -> None:
    """Every image of a folder has a segmentation."""
    with bench.check(dataset, f"{step}: files"):
        ending = read_json(bench.raw / dataset / "dataset.json")["file_ending"]
        cases = [path.name[: -len(f"_0000{ending}")] for path in images.glob(f"*_0000{ending}")]
        assert cases, f"no images in {images}"
        expect_files(output, [f"{case}{ending}" for case in cases])


# ------------------------------------------------------------------------------------------------------------ chains


def kill_and_continue(bench: Bench, ours: Model) -> None:
    """Train fold 0, kill it in the middle, go on with --c to the end."""
    epoch = train_killed(bench, ours, 0, "--npz")
    train(bench, ours, 0, "--npz", "--c", step=f"train fold 0, {OURS}, --c")
    check_journal(bench, ours, 0, resumed_at=epoch)
    check_validation(bench, ours, 0, probabilities=True)


def real_dataset(bench: Bench, spec: RealDataset, data: Path, limit: int | None, whole: bool) -> None:
    """The whole way of a real dataset, ours against stock, from raw files to the commands that nnU-Net recommends."""
    raw = bench.raw / spec.name
    patch_size = spec.whole_patch_size if whole else spec.patch_size
    extent = "whole files" if whole else f"blocks of {'x'.join(str(size) for _, size in spec.block)}"
    with bench.check(spec.name, f"real data in place ({spec.why}; {extent})"):
        take_dataset(spec, data / spec.name, raw, limit=limit, whole=whole)
    preprocess(bench, spec.name, spec.configuration)
    plans = plan(bench, spec.name, "progressive", patch_size, spec.configuration, PHASES)
    ours = Model(spec.name, spec.configuration, plans, OURS)
    stock = Model(spec.name, spec.configuration, plans, STOCK)

    kill_and_continue(bench, ours)
    train(bench, ours, 1, "--npz")
    check_journal(bench, ours, 1)
    check_validation(bench, ours, 1, probabilities=True)
    for fold in (0, 1):
        train(bench, stock, fold, "--npz")
        check_validation(bench, stock, fold, probabilities=True)
    validate_again(bench, ours)
    predict(bench, ours, raw / "predict", (0, 1), step="nnUNetv2_predict, both folds")
    find_best_configuration(bench, ours, stock)


def validate_again(bench: Bench, ours: Model) -> None:
    """--val and --val_best of a finished fold write its validation anew."""
    summary = ours.folder(bench.results) / "fold_0" / "validation" / "summary.json"
    # The last one is --val, so that find_best_configuration sees what the final checkpoint predicts.
    for flags in (("--val", "--val_best"), ("--val",)):
        summary.unlink()
        train(bench, ours, 0, "--npz", *flags, step=f"train fold 0, {' '.join(flags)}", says="Validation complete")
        check_validation(bench, ours, 0, probabilities=True, step=f"fold 0: validation files, {' '.join(flags)}")


def find_best_configuration(bench: Bench, ours: Model, stock: Model) -> None:
    """Let both trainers and their ensemble compete, then run the commands that nnU-Net writes down."""
    dataset = ours.dataset
    competitors = ("-c", ours.configuration, "-p", ours.plans, "-tr", stock.trainer, ours.trainer)
    command = ("nnUNetv2_find_best_configuration", ours.number, *competitors, "-f", 0, 1, "-np", 1)
    bench.run(dataset, "nnUNetv2_find_best_configuration", *command, says="***Run inference like this:***")
    with bench.check(dataset, "both trainers and their ensemble compared"):
        results = read_json(bench.results / dataset / "inference_information.json")["all_results"]
        assert len(results) == 3, f"compared {list(results)}"
        assert any(name.startswith("ensemble___") for name in results), f"no ensemble in {list(results)}"
        assert any(name.startswith(f"{OURS}__") for name in results), f"{OURS} not in {list(results)}"
    instructions = (bench.results / dataset / "inference_instructions.txt").read_text(encoding="utf-8")
    images, output = bench.raw / dataset / "predict", bench.work / "predictions" / dataset / "recommended"
    for line in instructions.splitlines():
        if line.startswith("nnUNetv2_"):
            words = [_recommended(word, images, output) for word in shlex.split(line)]
            extra = WORKERS if words[0] == "nnUNetv2_predict" else ()
            bench.run(dataset, f"recommended: {words[0]}", *words, *extra)
    check_predictions(bench, dataset, "recommended commands", images, output / "OUTPUT_FOLDER_PP")


def _recommended(word: str, images: Path, output: Path) -> str:
    if word == "INPUT_FOLDER":
        return str(images)
    return str(output / word) if word.startswith("OUTPUT_FOLDER") else word


# --------------------------------------------------------------------------------------------------------- synthetic


def synthesise(bench: Bench, number: int, kind: str, cases: int = 4) -> str:
    """Write a synthetic dataset of 32^3 voxels with `nnunet-topo synth`; returns its name."""
    dataset = f"Dataset{number}_{kind.capitalize()}"
    options = ("-o", bench.raw, "--kind", kind, "-n", cases, "--test-cases", 1, "--size", 32, "--seed", number)
    identity = ("--dataset-id", number, "--name", kind.capitalize())
    bench.run(dataset, f"nnunet-topo synth, {kind}", "nnunet-topo", "synth", *options, *identity)
    return dataset


def synthetic_small(bench: Bench, number: int = 901) -> Model:
    """The reduced chain for pytest: one synthetic dataset with an ignore label, one fold, kill, --c, --val, predict."""
    dataset = synthesise(bench, number, "scroll")
    preprocess(bench, dataset, "3d_fullres")
    plans = plan(bench, dataset, "progressive", (16, 16, 16), "3d_fullres", PHASES)
    ours = Model(dataset, "3d_fullres", plans, OURS)
    kill_and_continue(bench, ours)
    train(bench, ours, 0, "--val", step="train fold 0, --val", says="Validation complete")
    predict(bench, ours, bench.raw / dataset / "imagesTs", (0,), step="nnUNetv2_predict")
    return ours


def regions(bench: Bench) -> None:
    """Two nested regions instead of labels, without and with an ignore label."""
    for number, kind in ((910, "vessels"), (911, "scroll")):
        source = synthesise(bench, number + 10, kind)
        dataset = f"Dataset{number}_Regions{kind.capitalize()}"
        with bench.check(dataset, "two nested regions" + (", ignore label" if kind == "scroll" else "")):
            write_regions_dataset(bench.raw / source, bench.raw / dataset)
        preprocess(bench, dataset, "3d_fullres")
        plans = plan(bench, dataset, "progressive", (16, 16, 16), "3d_fullres", PHASES)
        ours = Model(dataset, "3d_fullres", plans, OURS)
        train(bench, ours, 0, "--npz")
        check_journal(bench, ours, 0)
        check_validation(bench, ours, 0, probabilities=True)
        predict(bench, ours, bench.raw / dataset / "imagesTs", (0,), step="nnUNetv2_predict")


def cascade(bench: Bench) -> None:
    """Low resolution on both folds, then the cascade's second stage on what they predicted."""
    dataset = synthesise(bench, 930, "vessels")
    preprocess(bench, dataset, "3d_fullres")
    add_cascade(bench.preprocessed / dataset / f"{PLANS}.json", 16)
    command = ("nnUNetv2_preprocess", "-d", 930, "-c", "3d_lowres", "-np", 1)
    bench.run(dataset, "nnUNetv2_preprocess, 3d_lowres", *command)
    plans = plan(bench, dataset, "progressive", (16, 16, 16), settings=PHASES)
    low = Model(dataset, "3d_lowres", plans, OURS)
    full = Model(dataset, "3d_cascade_fullres", plans, OURS)
    for fold in (0, 1):
        train(bench, low, fold, step=f"train fold {fold}, 3d_lowres")
    train(bench, full, 0, "--npz", step="train fold 0, 3d_cascade_fullres")
    check_journal(bench, full, 0)
    check_validation(bench, full, 0, probabilities=True)
    images = bench.raw / dataset / "imagesTs"
    first = predict(bench, low, images, (0, 1), step="nnUNetv2_predict, 3d_lowres")
    previous = ("-prev_stage_predictions", first)
    predict(bench, full, images, (0,), *previous, step="nnUNetv2_predict, 3d_cascade_fullres")


def sharing(bench: Bench) -> None:
    """Stock weights into our trainer, the recipe from the environment, fold all, and a model that moves house."""
    dataset = synthesise(bench, 940, "vessels")
    preprocess(bench, dataset, "3d_fullres")
    plans = plan(bench, dataset, "nnunet", (16, 16, 16), "3d_fullres")
    stock = Model(dataset, "3d_fullres", plans, STOCK)
    train(bench, stock, 0)
    weights = stock.folder(bench.results) / "fold_0" / "checkpoint_final.pth"
    ours = Model(dataset, "3d_fullres", plans, "nnUNetTrainerTopo")
    pretrained = ("-pretrained_weights", weights)
    step = "train fold 0, -pretrained_weights of a stock model"
    train(bench, ours, 0, *pretrained, step=step, says="Loading pretrained weights")
    _recipe_from_environment(bench, dataset)
    train(bench, ours, "all", step="train fold all, nnUNetTrainerTopo")
    check_validation(bench, ours, "all", probabilities=False)
    images = bench.raw / dataset / "imagesTs"
    here = predict(bench, ours, images, ("0", "all"), step="nnUNetv2_predict, folds 0 and all")
    _move(bench, ours, images, here)


def _recipe_from_environment(bench: Bench, dataset: str) -> None:
    """NNUNET_TOPO_RECIPE=nnunet: stock's full length, so it is ended once a first epoch is under way."""
    model = Model(dataset, "3d_fullres", PLANS, "nnUNetTrainerTopo")
    folder = model.folder(bench.results) / "fold_0"

    def started() -> bool:
        return any(line.get("what") == "start" for line in journal_lines(folder))

    variable = {"NNUNET_TOPO_RECIPE": "nnunet"}
    train_until(bench, model, 0, "train, NNUNET_TOPO_RECIPE=nnunet, started", started, variable)
    with bench.check(dataset, "the journal names recipe and source"):
        start = journal_lines(folder)[0]
        assert "nnunet" in start["why"], start
        assert "environment" in start["why"], start
    text = (bench.preprocessed / dataset / f"{PLANS}_nnunet.json").read_text(encoding="utf-8")
    file = bench.work / "own_recipe.yaml"
    file.write_text(
        "name: own_recipe\nepochs: 2\niterations_per_epoch: 2\nvalidation_iterations: 1\n"
        "phases:\n  - {from: 0, weights: {nnunet: 1.0, cldice: 0.2}}\n",
        encoding="utf-8",
    )
    plain = bench.preprocessed / dataset / f"{PLANS}Plain.json"
    plain.write_text(_without_recipe(text, plain.stem), encoding="utf-8")
    model = Model(dataset, "3d_fullres", plain.stem, "nnUNetTrainerTopo")
    variable = {"NNUNET_TOPO_RECIPE": str(file)}
    train(bench, model, 0, env=variable, step="train fold 0, NNUNET_TOPO_RECIPE=own file")
    train(bench, model, 0, "--val", step="train fold 0, --val without the variable", says="Validation complete")
    with bench.check(dataset, "own recipe in journal and checkpoint"):
        lines = epoch_lines(model.folder(bench.results) / "fold_0")
        assert [line["epoch"] for line in lines] == [0, 1], [line["epoch"] for line in lines]
        assert lines[0]["weights"] == {"nnunet": 1.0, "cldice": 0.2}, lines[0]["weights"]
        saved = read_checkpoint(model.folder(bench.results) / "fold_0" / "checkpoint_final.pth")
        assert saved["nnunet_topo"]["recipe"]["name"] == "own_recipe", saved["nnunet_topo"]["recipe"]["name"]


def _without_recipe(plans_text: str, name: str) -> str:
    import json

    plans = json.loads(plans_text)
    del plans["nnunet_topo"]
    return json.dumps(plans | {"plans_name": name})


def _move(bench: Bench, ours: Model, images: Path, predicted_here: Path) -> None:
    """Export, import where nothing else is, predict there both ways: the same segmentations as at home."""
    dataset, package, elsewhere = ours.dataset, bench.work / "model.zip", bench.work / "elsewhere"
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (elsewhere / name).mkdir(parents=True)
    roots = {path.name: str(path) for path in elsewhere.iterdir()}
    bench.run(
        dataset, "nnUNetv2_export_model_to_zip",
        "nnUNetv2_export_model_to_zip", *ours.selection(), "-f", 0, "all", "-o", package,
    )  # fmt: skip
    bench.run(
        dataset, "nnUNetv2_install_pretrained_model_from_zip",
        "nnUNetv2_install_pretrained_model_from_zip", package, env=roots,
    )  # fmt: skip
    model = ours.folder(elsewhere / "nnUNet_results")
    source = ("-i", images, "-f", "0", "all", *WORKERS)
    ways = {
        "nnUNetv2_predict": (*ours.selection(), "-o", elsewhere / "by_name"),
        "nnUNetv2_predict_from_modelfolder": ("-m", model, "-o", elsewhere / "by_folder"),
    }
    for command, arguments in ways.items():
        bench.run(dataset, f"{command}, elsewhere", command, *source, *arguments, env=roots)
    with bench.check(dataset, "the same segmentations as at home"):
        names = sorted(path.name for path in predicted_here.glob("*.nii.gz"))
        assert names, f"no predictions in {predicted_here}"
        for folder in (elsewhere / "by_name", elsewhere / "by_folder"):
            for name in names:
                assert _voxels(folder / name) == _voxels(predicted_here / name), f"{folder.name}/{name} differs"


def _voxels(path: Path) -> bytes:
    import SimpleITK

    return bytes(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).tobytes())
