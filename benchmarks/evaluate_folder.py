"""How fast a folder is scored, beside nnU-Net's own evaluation of it, and whether memory grows with the cases.

    python benchmarks/evaluate_folder.py --cases 100 --size 128 -np 2 --output benchmarks/results/evaluate_folder.json

Folded sheets, and predictions with noisy outlines, are written as .nii.gz and scored three times by fresh worker
processes: by nnU-Net (Dice and counts of voxels), by `evaluate` with nnU-Net's metrics alone, and with its default
ones. Meanwhile the memory of all workers together is sampled; if nothing is kept from case to case, its peak is the
same in every tenth of the run but the first, while workers start.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from scipy.ndimage import gaussian_filter

from nnunet_topo.evaluation.evaluate import evaluate_folders
from nnunet_topo.metrics.registry import DEFAULT_METRICS, NNUNET_METRICS

DIFFERENT_CASES = 10


def write_cases(folder: Path, cases: int, size: int) -> tuple[Path, Path]:
    """Folders of ground truth and predictions; after ten different cases they repeat."""
    folders = folder / "labelsTr", folder / "predictions"
    for place in folders:
        place.mkdir()
    generator = np.random.default_rng(0)
    for index in range(cases):
        if index >= DIFFERENT_CASES:
            for place in folders:
                shutil.copy(place / f"case_{index % DIFFERENT_CASES:03d}.nii.gz", place / f"case_{index:03d}.nii.gz")
            continue
        field = gaussian_filter(generator.standard_normal([size] * 3), size / 20)
        field /= field.std()
        noisy = field + 0.3 * gaussian_filter(generator.standard_normal([size] * 3), 1)
        for place, values in zip(folders, (field, noisy), strict=True):
            image = sitk.GetImageFromArray((np.abs(values) < 0.1).astype(np.uint8))
            sitk.WriteImage(image, str(place / f"case_{index:03d}.nii.gz"), True)
    labels = {"background": 0, "sheet": 1}
    content = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz", "numTraining": cases}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folders


def workers_mib() -> float:
    """Resident memory of all children of this process."""
    total = 0
    for entry in Path("/proc").iterdir():
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1] if entry.name.isdecimal() else ""
            if parent == str(os.getpid()):
                total += int((entry / "statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total * os.sysconf("SC_PAGE_SIZE") / 2**20


def processor_seconds() -> float:
    """User and system time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(task: Callable[[], object]) -> dict[str, object]:
    """Wall time, processor time (other work hardly changes it), and the peak of memory in every tenth of the run."""
    samples: list[tuple[float, float]] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.1):
            samples.append((time.monotonic(), workers_mib()))

    thread = threading.Thread(target=sample)
    used = processor_seconds()
    start = time.monotonic()
    thread.start()
    task()
    stop = time.monotonic()
    used = processor_seconds() - used
    done.set()
    thread.join()
    tenths: list[list[float]] = [[] for _ in range(10)]
    for moment, size in samples:
        tenths[min(9, int(10 * (moment - start) / (stop - start)))].append(size)
    return {
        "seconds": round(stop - start, 1),
        "processor_seconds_of_all_workers": round(used, 1),
        "peak_mib_of_all_workers_by_tenth": [round(max(part, default=0.0)) for part in tenths],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--size", type=int, default=128, help="edge length in voxels (default: 128)")
    parser.add_argument("-np", "--processes", type=int, default=2)
    parser.add_argument("--preset", help="a further run with this set of metrics")
    parser.add_argument("--output", type=Path, help="JSON file for the result; printed in any case")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        truth, predictions = write_cases(Path(temporary), arguments.cases, arguments.size)

        def ours(metrics: tuple[str, ...] | None, preset: str | None = None) -> None:
            evaluation = evaluate_folders(
                truth, predictions, metrics=metrics, preset=preset, processes=arguments.processes, progress=False
            )
            if evaluation.problems:
                raise RuntimeError(f"not every case was scored: {evaluation.problems[0]}")

        def stock() -> None:
            reader = SimpleITKIO()
            compute_metrics_on_folder(
                str(truth), str(predictions), None, reader, ".nii.gz", [1], num_processes=arguments.processes
            )

        runs = {
            "nnunet": measure(stock),
            "nnunets_metrics": measure(lambda: ours(NNUNET_METRICS)),
            "default_metrics": measure(lambda: ours(DEFAULT_METRICS)),
        }
        if arguments.preset:
            runs[f"preset_{arguments.preset}"] = measure(lambda: ours(None, arguments.preset))
    for run in runs.values():
        run["cases_per_minute"] = round(60 * arguments.cases / run["seconds"], 1)
        used, stock_used = (item["processor_seconds_of_all_workers"] for item in (run, runs["nnunet"]))
        run["processor_seconds_per_case"] = round(used / arguments.cases, 2)
        run["processor_seconds_relative_to_nnunet"] = round(used / stock_used, 2)
    flags = f"--cases {arguments.cases} --size {arguments.size} -np {arguments.processes}"
    flags += f" --preset {arguments.preset}" if arguments.preset else ""
    result = {
        "command": f"python benchmarks/evaluate_folder.py {flags} --output benchmarks/results/evaluate_folder.json",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "default_metrics": list(DEFAULT_METRICS),
        "runs": runs,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
