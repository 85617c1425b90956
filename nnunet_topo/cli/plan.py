"""`nnunet-topo plan`: a plans file that carries a recipe, so that `-p` alone selects it in nnU-Net's commands."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_topo.data.derived_plans import DerivedPlans


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the main parser."""
    parser = subparsers.add_parser(
        "plan",
        help="write a plans file that carries a recipe",
        description="Writes PLANS_RECIPE.json beside the dataset's plans: the recipe, and its overrides of batch size, "
        "patch size and feature width. The preprocessed data are used as they are.",
    )
    parser.add_argument("-d", dest="dataset", required=True, metavar="ID", help="dataset id or full name")
    parser.add_argument(
        "-r", dest="recipe", required=True, metavar="RECIPE", help="name of a recipe, or path of a file"
    )
    parser.add_argument(
        "-p", dest="plans", default="nnUNetPlans", metavar="PLANS", help="plans to start from (default: %(default)s)"
    )
    parser.add_argument(
        "-c", dest="configurations", nargs="+", metavar="CONFIG", help="configurations to override (default: all)"
    )
    parser.add_argument(
        "--set",
        dest="overrides",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings to replace, for example network.patch_size=[32,32,32] optimizer.lr=1e-3",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the file and say what it changes."""
    from nnunet_topo.data.derived_plans import derive_plans, preprocessed_dataset, read_plans, write_derived_plans
    from nnunet_topo.data.descriptions import read_dataset_json
    from nnunet_topo.recipe import load_recipe

    recipe = load_recipe(args.recipe).with_overrides(args.overrides)
    folder = preprocessed_dataset(_root("nnUNet_preprocessed"), args.dataset)
    plans = read_plans(folder, args.plans)
    derived = derive_plans(plans, recipe, name=f"{args.plans}_{recipe.name}", configurations=args.configurations)
    named = args.configurations is not None
    warnings = [*derived.warnings, *_not_preprocessed(derived, folder, args.plans, named=named)]
    dataset_json = read_dataset_json(folder / "dataset.json")
    memory = {
        configuration: _memory(plans, derived.plans, configuration, dataset_json)
        for configuration in derived.configurations
    }
    results = os.environ.get("nnUNet_results")
    path = write_derived_plans(derived, folder, Path(results) if results else None)
    command = _training_command(folder.name, derived)
    if args.json:
        report = {"file": str(path), "notes": derived.notes, "warnings": warnings, "memory_gb": memory, "next": command}
        print(json.dumps(report, indent=2))
        return 0
    for note in derived.notes:
        print(note)
    for configuration, (before, after) in memory.items():
        print(f"{configuration}: GPU memory about {_gb(after)} (nnU-Net's estimate; {_gb(before)} before)")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"wrote {path}")
    print(f"next: {command}")
    return 0


def _root(variable: str) -> Path:
    from nnunet_topo.errors import ConfigError

    folder = os.environ.get(variable)
    if not folder:
        raise ConfigError(
            f"{variable}: expected a folder, got nothing. Set the environment variable, as nnU-Net needs it."
        )
    return Path(folder)


def _not_preprocessed(derived: DerivedPlans, folder: Path, plans_name: str, *, named: bool) -> list[str]:
    """Warnings for configurations without data; an error when the user named one, or when none has data."""
    from nnunet_topo.errors import ConfigError

    identifiers = {name: derived.plans["configurations"][name]["data_identifier"] for name in derived.configurations}
    missing = {name: data for name, data in identifiers.items() if not (folder / data).is_dir()}
    if missing and (named or len(missing) == len(identifiers)):
        command = f"nnUNetv2_preprocess -d {folder.name} -plans_name {plans_name} -c {' '.join(missing)}"
        raise ConfigError(
            f"configuration: expected preprocessed data, got none for {', '.join(missing)}. {folder}. "
            f"Run '{command}' first."
        )
    return [f"{name}: not preprocessed yet ({data} is missing)" for name, data in missing.items()]


def _memory(
    plans: Mapping[str, Any], derived: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any]
) -> tuple[float | None, float | None]:
    """Estimated GB of a configuration before and after the overrides."""
    from nnunet_topo.data.memory_estimate import estimated_memory_gb

    before = estimated_memory_gb(plans, configuration, dataset_json)
    after = estimated_memory_gb(derived, configuration, dataset_json)
    return before, after


def _gb(memory_gb: float | None) -> str:
    return "unknown" if memory_gb is None else f"{memory_gb:.2g} GB" if memory_gb < 10 else f"{memory_gb:.0f} GB"


def _training_command(dataset: str, derived: DerivedPlans) -> str:
    candidates: Sequence[str] = derived.configurations
    configuration = "3d_fullres" if "3d_fullres" in candidates else candidates[0]
    return f"nnUNetv2_train {dataset} {configuration} 0 -tr nnUNetTrainerTopo -p {derived.plans['plans_name']}"
