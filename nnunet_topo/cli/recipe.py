"""`nnunet-topo recipe list | show | check | import`: the recipes that come with the package, and one's own."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_topo.recipe import Recipe


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the main parser."""
    parser = subparsers.add_parser(
        "recipe",
        help="list, show, check and import recipes",
        description="A recipe is a YAML file with every setting of a training. docs/recipes.md has all keys.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the recipes that come with the package")
    listing.set_defaults(run=run_list)
    show = actions.add_parser("show", help="a recipe with all defaults filled in, as YAML")
    show.add_argument("recipe", metavar="NAME", help="name of a recipe, or path of a YAML file")
    show.set_defaults(run=run_show)
    check = actions.add_parser("check", help="validate a recipe; exit status 1 when it is wrong")
    check.add_argument("recipe", metavar="FILE", help="path of a YAML file, or name of a recipe")
    check.set_defaults(run=run_check)
    importer = actions.add_parser("import", help="turn a YAML file of the training diary into a recipe, on stdout")
    importer.add_argument("diary", metavar="DIARY_YAML", help="path of the diary's file")
    importer.set_defaults(run=run_import)
    for action in (listing, show, check, importer):
        action.add_argument("--json", action="store_true", help="print JSON")


def run_list(args: argparse.Namespace) -> int:
    """Print name, epochs, terms and purpose of each recipe."""
    from nnunet_topo.recipe import builtin_recipes, load_recipe

    rows, shown = [], [("name", "epochs", "terms", "purpose")]
    for name, path in builtin_recipes().items():
        recipe = load_recipe(name)
        terms = list(recipe.active_terms())
        rows.append({"name": name, "epochs": recipe.epochs, "terms": terms, "purpose": _purpose(path)})
        shown.append((name, str(recipe.epochs), " ".join(terms), _purpose(path)))
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    widths = [max(len(row[column]) for row in shown) for column in range(3)]
    for row in shown:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]))
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print the resolved recipe."""
    from nnunet_topo.recipe import load_recipe

    _print_recipe(load_recipe(args.recipe), as_json=args.json)
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Validate a recipe; an error reaches the caller as ConfigError."""
    from nnunet_topo.recipe import load_recipe, remarks

    recipe = load_recipe(args.recipe)
    starts, notes = recipe.phase_starts(), remarks(recipe)
    if args.json:
        summary = {"ok": True, "name": recipe.name, "epochs": recipe.epochs, "terms": list(recipe.active_terms())}
        print(json.dumps({**summary, "phase_starts": list(starts), "remarks": notes}, indent=2))
        return 0
    print(f"ok: {recipe.name}, {recipe.epochs} epochs, {recipe.optimizer.name} at {recipe.optimizer.lr:g}")
    for phase, start in zip(recipe.phases, starts, strict=True):
        ramp = f", reached over {phase.ramp_epochs} epochs" if phase.ramp_epochs else ""
        print(
            f"  from epoch {start}: {', '.join(f'{term} {weight:g}' for term, weight in phase.weights.items())}{ramp}"
        )
    for note in notes:
        print(f"note: {note}")
    return 0


def run_import(args: argparse.Namespace) -> int:
    """Print the recipe of a diary file; warnings go to stderr."""
    from nnunet_topo.diary import recipe_from_diary

    recipe, warnings = recipe_from_diary(args.diary)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    _print_recipe(recipe, as_json=args.json)
    return 0


def _print_recipe(recipe: Recipe, *, as_json: bool) -> None:
    from nnunet_topo.recipe import recipe_to_yaml

    print(json.dumps(recipe.to_mapping(), indent=2) if as_json else recipe_to_yaml(recipe).rstrip())


def _purpose(path: Path) -> str:
    """First comment line of a recipe file, without the recipe's name."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").removeprefix(f"{path.stem}:").strip() if first.startswith("#") else ""
