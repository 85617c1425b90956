"""How fast the competition's score is, and how much memory it takes, beside the official computation.

    pip install --no-deps topolosses==0.2.0
    python benchmarks/leaderboard.py --sizes 256 320 --repeats 3 --output benchmarks/results/leaderboard.json

The official computation is rebuilt here from the same libraries on the same whole arrays, in one process: the compiled
Betti matching octant by octant (from the topolosses wheel, which holds the official engine; loaded by itself, since the
package would import torchvision and opencv), google's surface-distance, cc3d, and scikit-image's variation of
information. Volumes are synthetic scrolls with unlabelled regions; predictions wobble, with holes, bridges and specks.

Each measurement is a process of its own, the two ways in turns, so other work on the machine slows both alike. Wall
time and processor time are those of the scoring alone, without imports and reading; the peak is that of the process.
The scores must agree to 1e-9 and the counts exactly, or the benchmark fails.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np

PACKAGES = ("connected-components-3d", "numpy", "scikit-image", "scipy", "surface-distance", "topolosses")
IGNORED = 2


def make_volumes(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and labels, uint8."""
    from scipy.ndimage import gaussian_filter

    from nnunet_topo.data.synthetic_scroll import scroll_volume, unlabelled_mask

    generator = np.random.default_rng(seed)
    _, sheet = scroll_volume(size, generator)
    labels = sheet.astype(np.uint8)
    labels[unlabelled_mask(size, generator)] = IGNORED
    wobble = gaussian_filter(generator.standard_normal(sheet.shape, np.float32), 1.5)
    wobble *= np.float32(0.2 / wobble.std())
    prediction = gaussian_filter(sheet.astype(np.float32), 0.8) + wobble > 0.45
    for _ in range(size):  # boxes of 2 to 7 voxels, missing or too much
        start, edge = generator.integers(0, size - 8, 3), generator.integers(2, 8, 3)
        box = tuple(slice(int(low), int(low + length)) for low, length in zip(start, edge, strict=True))
        prediction[box] = generator.random() < 0.3
    return prediction.astype(np.uint8), labels


def load_engine():
    distribution = importlib.metadata.distribution("topolosses")
    (file,) = (file for file in distribution.files if file.match("betti_matching/src/betti_matching.*.so"))
    spec = importlib.util.spec_from_file_location("betti_matching", distribution.locate_file(file))
    engine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(engine)
    return engine


def official(prediction: np.ndarray, labels: np.ndarray, libraries: tuple) -> dict:
    engine, cc3d, surface_distance, variation_of_information = libraries
    ignored = labels == IGNORED
    prediction, labels = np.where(ignored, 0, prediction) != 0, np.where(ignored, 0, labels) != 0
    totals = np.zeros((3, 3), int)
    halves = [(slice(0, (size + 1) // 2), slice((size + 1) // 2, size)) for size in labels.shape]
    for octant in product(*halves):
        found = engine.compute_matching((~prediction[octant]).astype(np.uint8), (~labels[octant]).astype(np.uint8))
        matched = np.asarray(found.num_matched)
        numbers = (matched, matched + found.num_unmatched_input1, matched + found.num_unmatched_input2)
        totals += np.stack(numbers, axis=1)
    distances = surface_distance.compute_surface_distances(labels, prediction, (1.0, 1.0, 1.0))
    surface = surface_distance.compute_surface_dice_at_tolerance(distances, 2.0)
    union = prediction | labels
    components = [cc3d.connected_components(mask.astype(np.uint8), connectivity=26) for mask in (labels, prediction)]
    split, merge = variation_of_information(*(found[union] for found in components))
    shares = [2 * m / (p + g) if g else 0.5 / (p + 0.5) for m, p, g in totals if p + g]
    weights = [weight for weight, (_, p, g) in zip((0.34, 0.33, 0.33), totals, strict=True) if p + g]
    topo = np.average(shares, weights=weights) if shares else 1.0
    score = 0.3 * topo + 0.35 * surface + 0.35 / (1 + 0.3 * (split + merge))
    return {"score": float(score), "counts": totals.tolist()}


def measure(way: str, folder: Path) -> dict:
    """Score in this process."""
    prediction, labels = np.load(folder / "prediction.npy"), np.load(folder / "labels.npy")
    if way == "official":
        warnings.simplefilter("ignore", DeprecationWarning)  # surface-distance uses scipy's old names
        import cc3d
        import surface_distance
        from skimage.metrics import variation_of_information

        libraries = load_engine(), cc3d, surface_distance, variation_of_information
        clocks = time.perf_counter(), time.process_time()
        result = official(prediction, labels, libraries)
    else:
        from nnunet_topo.metrics.leaderboard import leaderboard_score

        clocks = time.perf_counter(), time.process_time()
        found = leaderboard_score(prediction, labels)
        result = {"score": found.score, "counts": [list(found.counts[dimension]) for dimension in range(3)]}
    return {
        "wall_s": time.perf_counter() - clocks[0],
        "processor_s": time.process_time() - clocks[1],
        "peak_mib": peak_mib(),
        **result,
    }


def peak_mib() -> float:
    """Of this program. (`resource.getrusage` also counts the process that started it, as large as it was then.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the peak of memory is read from /proc/self/status, which this system lacks")


def compare(size: int, seed: int, repeats: int) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prediction, labels = make_volumes(size, seed)
        np.save(folder / "prediction.npy", prediction)
        np.save(folder / "labels.npy", labels)
        runs: dict[str, list[dict]] = {"ours": [], "official": []}
        for _ in range(repeats):
            for way, found in runs.items():
                command = [sys.executable, __file__, "--measure", way, str(folder)]
                found.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    ours, theirs = runs["ours"][0], runs["official"][0]
    if ours["counts"] != theirs["counts"] or abs(ours["score"] - theirs["score"]) > 1e-9:
        raise SystemExit(f"the scores differ: {ours} and {theirs}")
    result = {"size": size, "seed": seed, "score": ours["score"], "counts_matched_predicted_labelled": ours["counts"]}
    for way, found in runs.items():
        result[way] = {
            "wall_s": [round(run["wall_s"], 2) for run in found],
            "processor_s": [round(run["processor_s"], 2) for run in found],
            "peak_mib": round(max(run["peak_mib"] for run in found)),
        }
    for clock in ("wall_s", "processor_s"):
        medians = [statistics.median(result[way][clock]) for way in ("official", "ours")]
        result[f"times_faster_by_{clock}"] = round(medians[0] / medians[1], 1)
    return result


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256], help="edges of the volumes (default: 256)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each way (default: 3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for the result; printed in any case")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], Path(arguments.measure[1]))))
        return
    result = {
        "command": " ".join(["python", "benchmarks/leaderboard.py", *sys.argv[1:]]),
        "device": processor(),
        "processors": len(os.sched_getaffinity(0)),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "volumes": [compare(size, arguments.seed, arguments.repeats) for size in arguments.sizes],
    }
    text = json.dumps(result, indent=2) + "\n"
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
