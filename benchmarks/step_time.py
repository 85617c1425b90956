"""Time and peak memory of a training step, stock nnU-Net against ours, side by side in one process.

    python benchmarks/step_time.py                   # CPU, small network
    python benchmarks/step_time.py --device cuda     # 128^3, batch 2, fp16 autocast and torch.compile, as users train

Every variant trains its own network on the same batch. Steps of all variants alternate, so a machine whose speed
drifts slows all of them alike; the figure is the median over rounds of the ratio to stock's step in the same round.
Memory is measured in a pass of its own: on a GPU by the allocator's peak, on the CPU by torch's profiler, both as the
ratio of what a step needs on top of what lay in memory before it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

SEED = 0
STAGES = {"cpu": (3, 8), "cuda": (6, 32)}  # stages, features of the first


def plans(patch: int, batch_size: int, device: str) -> dict[str, Any]:
    """nnU-Net plans of an isotropic 3-D configuration, as its default planner lays them out."""
    stages, width = STAGES[device]
    features = [min(320, width * 2**stage) for stage in range(stages)]
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": features,
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": "benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": batch_size,
        "patch_size": [patch] * 3,
        "median_image_size_in_voxels": [patch] * 3,
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        "architecture": architecture,
    }
    return {
        "dataset_name": "Dataset999_Benchmark",
        "plans_name": "benchmark",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "configurations": {"3d_fullres": configuration},
        "continue_training": False,
    }


def variants() -> dict[str, tuple[str, dict[str, Any] | None]]:
    """Name -> (trainer, recipe): stock, ours as stock, recipes' last phases, progressive's, and the diary's terms."""
    from nnunet_topo.recipe import load_recipe

    progressive = load_recipe("progressive").to_mapping()
    chosen: dict[str, tuple[str, dict[str, Any] | None]] = {
        "stock": ("stock", None),
        "nnunet": ("topo", load_recipe("nnunet").to_mapping()),
    }
    for name in ("surface", "vessel", "membrane"):
        recipe = load_recipe(name)
        phase = {"from": 0, "weights": dict(recipe.phases[-1].weights)}
        chosen[f"{name}, last phase"] = ("topo", {"name": name, "phases": [phase], "losses": dict(recipe.losses)})
    diary = {
        "ce": 1.0,
        "dice": 1.0,
        "focal": 0.2,
        "variance": 0.1,
        "entropy": 0.1,
        "boundary": 0.1,
        "connectivity": 0.1,
    }
    weights = {f"progressive phase {i}": phase["weights"] for i, phase in enumerate(progressive["phases"])}
    weights |= {"ce + dice": {"ce": 1.0, "dice": 1.0}, "diary terms but cldice": diary}
    weights["diary terms"] = {**diary, "cldice": 0.1}
    for name, phase in weights.items():
        chosen[name] = ("topo", {"name": "benchmark", "phases": [{"from": 0, "weights": phase}]})
    return chosen


def make_trainer(kind: str, recipe: dict[str, Any] | None, patch: int, batch_size: int, device: str) -> Any:
    """An initialised trainer with its loss set to epoch 0."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunet_topo.training.trainers import nnUNetTrainerTopo

    settings = plans(patch, batch_size, device)
    if recipe is not None:
        settings["nnunet_topo"] = {"recipe": recipe}
    dataset = {"channel_names": {"0": "microscopy"}, "labels": {"background": 0, "foreground": 1, "ignore": 2}}
    dataset |= {"numTraining": 1, "file_ending": ".nii.gz"}
    torch.manual_seed(SEED)
    torch.backends.cudnn.benchmark = True  # as nnUNetv2_train sets it
    trainer = (nnUNetTrainer if kind == "stock" else nnUNetTrainerTopo)(
        settings, "3d_fullres", 0, dataset, torch.device(device)
    )
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    trainer.on_train_epoch_start()
    return trainer


def make_batch(trainer: Any, patch: int, batch_size: int) -> dict[str, Any]:
    """Noise with a tube in it, as the augmentation workers hand it over: label maps at all scales, then the targets."""
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform

    from nnunet_topo.training.targets import AppendLabelTargets

    rng = np.random.default_rng(SEED)
    axis = np.arange(patch)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    centre = patch / 2 + patch / 4 * np.sin(z / patch * 6)
    labels = ((y - centre) ** 2 + (x - patch / 2) ** 2 < (patch / 12) ** 2).astype(np.int16)
    labels[:, :3] = 2
    sample: Any = torch.from_numpy(labels)[None]
    sample = DownsampleSegForDSTransform(trainer._get_deep_supervision_scales())(segmentation=sample)["segmentation"]
    names = getattr(trainer.loss, "target_names", ())
    if names:
        append = AppendLabelTargets(names, ignore_label=2, regions=False, spacing=(1.0, 1.0, 1.0))
        sample = append(segmentation=sample)["segmentation"]
    target = [torch.stack([tensor] * batch_size) for tensor in sample]
    image = torch.from_numpy(rng.normal(size=(batch_size, 1, patch, patch, patch)).astype(np.float32))
    if trainer.device.type == "cuda":  # as nnU-Net's loaders hand them over; other memory would be waited for
        image, target = image.pin_memory(), [tensor.pin_memory() for tensor in target]
    return {"data": image, "target": target, "keys": ["benchmark"] * batch_size}


def step_time_s(trainer: Any, batch: dict[str, Any], device: str) -> float:
    """Seconds of one training step."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = perf_counter()
    trainer.train_step(batch)
    if device == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - start


def peak_bytes(trainer: Any, batch: dict[str, Any], device: str) -> int:
    """Most memory that one step holds on top of what was held before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        gc.collect()  # what the warm-up left behind must not be freed within the step
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        trainer.train_step(batch)
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        trainer.train_step(batch)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def main() -> int:
    """Run the comparison, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--patch", type=int, default=None, help="edge of the patch in voxels (48 on CPU, 128 on GPU)")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=None, help="timed steps of every variant (15 on CPU, 60 on GPU)")
    parser.add_argument(
        "--variants", nargs="+", default=None, help="names to compare with stock, as the table has them"
    )
    parser.add_argument("-o", "--output", type=Path, default=None, help="JSON file to write")
    arguments = parser.parse_args()
    device = arguments.device
    patch = arguments.patch or {"cpu": 48, "cuda": 128}[device]
    rounds = arguments.rounds or {"cpu": 15, "cuda": 60}[device]
    if device == "cpu":
        torch.set_num_threads(1)
    folder = tempfile.TemporaryDirectory()
    os.environ["nnUNet_results"] = os.environ["nnUNet_preprocessed"] = folder.name
    (Path(folder.name) / "Dataset999_Benchmark" / "benchmark").mkdir(parents=True)
    # nnU-Net tells its dataset format by the file endings that it finds; the batch itself is made here.
    (Path(folder.name) / "Dataset999_Benchmark" / "benchmark" / "case.b2nd").touch()
    chosen = variants()
    if arguments.variants:
        unknown = set(arguments.variants) - set(chosen)
        if unknown:
            parser.error(f"--variants: expected of {list(chosen)}, got {sorted(unknown)}")
        chosen = {name: chosen[name] for name in dict.fromkeys(["stock", *arguments.variants])}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    memory: dict[str, int] = {}
    trainers, batches = {}, {}
    for name, (kind, recipe) in chosen.items():
        trainers[name] = make_trainer(kind, recipe, patch, arguments.batch_size, device)
        batches[name] = make_batch(trainers[name], patch, arguments.batch_size)
        for _ in range(3):
            trainers[name].train_step(batches[name])
        memory[name] = peak_bytes(trainers[name], batches[name], device)
    for _ in range(rounds):
        for name in chosen:
            seconds[name].append(step_time_s(trainers[name], batches[name], device))
    rows = {}
    for name in chosen:
        ratios = [ours / stock for ours, stock in zip(seconds[name], seconds["stock"], strict=True)]
        quartiles = statistics.quantiles(ratios, n=4)
        rows[name] = {
            "time_ratio": round(statistics.median(ratios), 4),
            "time_ratio_quartiles": [round(quartiles[0], 4), round(quartiles[2], 4)],
            "median_step_s": round(statistics.median(seconds[name]), 5),
            "memory_ratio": round(memory[name] / memory["stock"], 4),
            "peak_step_bytes": memory[name],
        }
    result = {
        "command": "python benchmarks/step_time.py " + " ".join(sys.argv[1:]),
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {platform.machine()}, 1 thread",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "compiled": bool(trainers["stock"]._do_i_compile()),
        "autocast": "float16" if device == "cuda" else None,
        "patch": [patch] * 3,
        "batch_size": arguments.batch_size,
        "rounds": rounds,
        "seed": SEED,
        "variants": rows,
    }
    print(f"{'variant':28}{'time / stock':>14}{'quartiles':>20}{'memory / stock':>17}")
    for name, row in rows.items():
        low, high = row["time_ratio_quartiles"]
        print(f"{name:28}{row['time_ratio']:>14.3f}{f'{low:.3f} .. {high:.3f}':>20}{row['memory_ratio']:>17.3f}")
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
