"""The whole path on a synthetic scroll, on CPU: data, plans, two trainers, two folds, prediction, scores, a report.

Run from the repository's root with the Python of an environment that has the package: `make demo`. Everything it makes
is in `demo_output`, which is removed first. Below 10 minutes on two cores.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from steps import Runner, StepFailed, only, say, training_progress

OUTPUT = Path.cwd() / "demo_output"
ROOTS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
DATASET_ID, DATASET = 998, "Dataset998_SyntheticScroll"
CASES, HELD_OUT, SIZE = 6, 3, 40
FOLDS = (0, 1)
EPOCHS, ITERATIONS, VALIDATION_ITERATIONS = 12, 10, 2
RECIPE, CONFIGURATION = "progressive", "3d_fullres"
PLANS = f"nnUNetPlans_{RECIPE}"
SETTINGS = (
    f"epochs={EPOCHS}",
    f"iterations_per_epoch={ITERATIONS}",
    f"validation_iterations={VALIDATION_ITERATIONS}",
    "network.patch_size=[40,40,40]",
    "network.batch_size=2",
    "network.features=8",
)
STOCK, OURS = "nnUNetTrainer", "nnUNetTrainerTopoProgressive"
VERDICT = (
    f"{EPOCHS * ITERATIONS} steps, a tiny network, {HELD_OUT} held-out cases, one run: this shows that the whole path "
    "runs and what it measures, not which trainer is better."
)


def environment() -> dict[str, str]:
    """The caller's environment with nnU-Net's variables set for a small run on CPU, whatever they were."""
    kept = {key: value for key, value in os.environ.items() if not key.upper().startswith("NNUNET")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    # nnU-Net sets its own number of threads on CPU; waiting ones must not keep a core busy.
    threads["OMP_WAIT_POLICY"] = "PASSIVE"
    nnunet = {"nnUNet_compile": "f", "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}
    roots = {name: str(OUTPUT / name) for name in ROOTS}
    return {**kept, **threads, **nnunet, **roots, "MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1"}


def main() -> None:
    """Run all steps."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    for name in ROOTS:
        (OUTPUT / name).mkdir(parents=True)
    run = Runner(OUTPUT, environment(), count=8 + 2 * len(FOLDS))
    raw = OUTPUT / "nnUNet_raw" / DATASET
    preprocessed = OUTPUT / "nnUNet_preprocessed" / DATASET
    results = OUTPUT / "nnUNet_results" / DATASET
    models = {trainer: results / f"{trainer}__{PLANS}__{CONFIGURATION}" for trainer in (STOCK, OURS)}
    predictions = {trainer: OUTPUT / "predictions" / trainer for trainer in (STOCK, OURS)}
    options: tuple[object, ...]

    with run.step(f"synthetic scroll: {CASES} training and {HELD_OUT} held-out cases of {SIZE} voxels a side"):
        size = ("-n", CASES, "--test-cases", HELD_OUT, "--size", SIZE, "--seed", 1)
        run.run("synth", "nnunet-topo", "synth", "--kind", "scroll", *size, show=only(r"^case ", r"^scroll_"))
    with run.step("nnU-Net's own planning and preprocessing"):
        options = ("-d", DATASET_ID, "-c", CONFIGURATION, "--verify_dataset_integrity", "-np", 1, "-npfp", 1)
        interesting = only("^Fingerprint", "verify_dataset", "U-Net configuration:$", "^Preprocessing dataset", "100%")
        run.run("plan_and_preprocess", "nnUNetv2_plan_and_preprocess", *options, show=interesting)
        folds = [{"train": names(raw)[1 - fold :: 2], "val": names(raw)[fold::2]} for fold in FOLDS]
        (preprocessed / "splits_final.json").write_text(json.dumps(folds, indent=2))
    with run.step(
        f"plans that carry the recipe '{RECIPE}', shortened, with a tiny network; the stock run uses them too"
    ):
        options = ("-d", DATASET_ID, "-r", RECIPE, "-c", CONFIGURATION, "--set", *SETTINGS)
        run.run("plan", "nnunet-topo", "plan", *options, show=only("^3d", "^warning", "^wrote"))

    progress = training_progress(EPOCHS)
    for fold in FOLDS:
        options = (DATASET_ID, CONFIGURATION, fold, "-p", PLANS, "--npz", "-device", "cpu")
        lengths = (EPOCHS, ITERATIONS, VALIDATION_ITERATIONS)
        with run.step(f"stock {STOCK}, fold {fold}, cut to the same {EPOCHS} epochs of {ITERATIONS} steps"):
            launcher = Path(__file__).with_name("stock_short.py")
            run.run(f"train_stock_{fold}", sys.executable, launcher, *lengths, *options, "-tr", STOCK, show=progress)
        with run.step(f"{OURS}, fold {fold}"):
            run.run(f"train_ours_{fold}", "nnUNetv2_train", *options, "-tr", OURS, show=progress)

    with run.step("nnU-Net's choice of the best configuration, by cross-validation Dice, ensembles included"):
        options = ("-c", CONFIGURATION, "-p", PLANS, "-tr", STOCK, OURS, "-f", *FOLDS, "-np", 1)
        interesting = only(r"^nnUNetTrainer.*: [0-9.]+$", r"^ensemble_.*: [0-9.]+$", r"^\*")
        run.run("find_best", "nnUNetv2_find_best_configuration", DATASET_ID, *options, show=interesting)
    for trainer in (STOCK, OURS):
        with run.step(f"prediction of the held-out cases, {trainer}"):
            folders = ("-i", raw / "imagesTs", "-o", predictions[trainer])
            model = ("-d", DATASET_ID, "-c", CONFIGURATION, "-p", PLANS, "-tr", trainer, "-f", *FOLDS)
            options = ("-npp", 1, "-nps", 1, "-device", "cpu")
            run.run(
                f"predict_{trainer}", "nnUNetv2_predict", *folders, *model, *options, show=only("^Predicting scroll")
            )
    with run.step("scores of the held-out cases, and their difference"):
        for trainer, folder in predictions.items():
            options = (raw / "labelsTs", folder, "-np", 1)
            run.run(f"evaluate_{trainer}", "nnunet-topo", "evaluate", *options, show=only("^wrote"))
        run.run("compare", "nnunet-topo", "compare", *predictions.values(), show=only(r"\S  +\S", "^warning: only"))
        say(f"      {VERDICT}")
    with run.step("the report: what was trained, how it went, and where the cross-validation is wrong"):
        page = OUTPUT / "report.html"
        options = (models[OURS], "--against", models[STOCK], "-o", page, "-np", 1)
        run.run("report", "nnunet-topo", "report", *options, show=only(r"^ *[\d./ ]+  \w"))
        say(f"      {page.relative_to(Path.cwd())} ({page.stat().st_size / 1e6:.1f} MB): open it in a browser")


def names(raw: Path) -> list[str]:
    """Names of the training cases, sorted."""
    return sorted(path.stem for path in (raw / "labelsTr").glob("*.tif"))


if __name__ == "__main__":
    # As an exception, so that the running command and its workers are ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except StepFailed as failure:
        say(f"\nFAILED: {failure}")
        sys.exit(1)
