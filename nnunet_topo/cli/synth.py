"""`nnunet-topo synth`: a synthetic dataset with topology to lose."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "synth",
        help="write a synthetic dataset in nnU-Net's raw layout",
        description="Writes an nnU-Net raw dataset whose topology is known: a rolled papyrus sheet with windings that "
        "nearly touch (tif, ignore label), or a vessel tree with loops (nii.gz). Betti numbers of every case are in "
        "its topology.csv. The same seed gives the same files.",
    )
    parser.add_argument("-o", "--output", metavar="RAW", help="folder of raw datasets (default: $nnUNet_raw)")
    parser.add_argument("--kind", default="scroll", help="scroll (default) or vessels")
    parser.add_argument("-n", "--cases", metavar="N", type=int, default=8, help="training cases (default: 8)")
    parser.add_argument(
        "--test-cases", metavar="N", type=int, default=2, help="held-out cases with complete labels (default: 2)"
    )
    parser.add_argument(
        "--size", metavar="VOXELS", type=int, default=64, help="edge length in voxels, 24 to 256 (default: 64)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator, >= 0 (default: 0)")
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        default=(1.0, 1.0, 1.0),
        metavar=("Z", "Y", "X"),
        help="edge lengths of a voxel in mm: equal for a scroll, up to 10:1 for vessels (default: 1 1 1)",
    )
    parser.add_argument("--dataset-id", metavar="ID", type=int, default=998, help="1 to 999 (default: 998)")
    parser.add_argument("--name", help="name of the dataset (default: SyntheticScroll or SyntheticVessels)")
    parser.add_argument("--force", action="store_true", help="replace a dataset that this command wrote")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the dataset and print where it is and what is in it."""
    from nnunet_topo.data.raw import raw_root, require_writable
    from nnunet_topo.data.synthetic import write_synthetic_dataset

    root = raw_root(arguments.output)
    require_writable(root)
    folder, rows = write_synthetic_dataset(
        root,
        kind=arguments.kind,
        cases=arguments.cases,
        test_cases=arguments.test_cases,
        size=arguments.size,
        seed=arguments.seed,
        dataset_id=arguments.dataset_id,
        name=arguments.name,
        spacing=tuple(arguments.spacing),
        force=arguments.force,
    )
    if arguments.json:
        print(json.dumps({"folder": str(folder), "cases": [asdict(row) for row in rows]}, indent=2))
        return 0
    print(f"{'case':<20} {'split':<5} {'b0':>4} {'b1':>4} {'b2':>4} {'foreground':>11} {'ignored':>8}")
    for row in rows:
        shares = f"{row.foreground_share:>11.1%} {row.ignored_share:>8.1%}"
        print(f"{row.case:<20} {row.split:<5} {row.b0:>4} {row.b1:>4} {row.b2:>4} {shares}")
    print(f"{folder}")
    return 0
