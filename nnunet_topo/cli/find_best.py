"""`nnunet-topo find-best`: nnUNetv2_find_best_configuration by any metric."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from nnunet_topo.cli.arguments import add_processes, require_processes

if TYPE_CHECKING:
    from nnunet_topo.evaluation.find_best import BestConfiguration

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the main parser."""
    parser = subparsers.add_parser(
        "find-best",
        help="choose the best trained configuration or ensemble by any metric",
        description="As nnUNetv2_find_best_configuration, which knows Dice alone: compares the cross-validations of "
        "trained models and of the ensembles of two, chooses the postprocessing, both by the same metric, writes "
        "inference_information.json and inference_instructions.txt, and prints the commands that predict new cases. "
        "Ensembles need models trained (or validated) with --npz.",
    )
    parser.add_argument("dataset", metavar="ID", help="dataset id or name")
    parser.add_argument(
        "-tr",
        dest="trainers",
        nargs="+",
        default=["nnUNetTrainer"],
        metavar="TRAINER",
        help="trainers (default: nnUNetTrainer)",
    )
    parser.add_argument(
        "-p", dest="plans", nargs="+", default=["nnUNetPlans"], metavar="PLANS", help="plans (default: nnUNetPlans)"
    )
    parser.add_argument(
        "-c",
        dest="configurations",
        nargs="+",
        default=list(CONFIGURATIONS),
        metavar="CONFIG",
        help="configurations (default: those of " + ", ".join(CONFIGURATIONS) + " that the plans hold)",
    )
    parser.add_argument(
        "-f",
        dest="folds",
        nargs="+",
        type=_fold,
        default=[0, 1, 2, 3, 4],
        metavar="FOLD",
        help="folds (default: 0 1 2 3 4)",
    )
    parser.add_argument("--metric", required=True, metavar="NAME", help="what ranks, for example leaderboard or cldice")
    parser.add_argument(
        "--guard",
        dest="guards",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME:CHANGE",
        help="leave out what is worse in another metric: 'dice:-0.005' whatever has a mean Dice more than 0.005 below "
        "the candidate with the best Dice, 'hd95:+2' whatever is more than 2 above the lowest HD95",
    )
    parser.add_argument("--disable_ensembling", action="store_true", help="compare single models only")
    parser.add_argument("--skip_untrained", action="store_true", help="leave out combinations that were not trained")
    parser.add_argument("--no_overwrite", action="store_true", help="use collected, ensembled and scored cases again")
    add_processes(parser, 2)
    parser.add_argument("--json", action="store_true", help="print inference_information.json")
    parser.set_defaults(run=run)


def _fold(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected the number of a fold, got '{text}' (fold all holds no case out)")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Choose, write the files, and print the commands."""
    from nnunet_topo.errors import ConfigError
    from nnunet_topo.evaluation.judge import parse_judge

    judge = parse_judge(arguments.metric, arguments.guards)
    require_processes(arguments)
    if len(set(arguments.folds)) < len(arguments.folds):
        raise ConfigError(f"-f: expected each fold once, got {' '.join(map(str, arguments.folds))}.")

    from nnunet_topo.evaluation.candidates import dataset_name, trained_models
    from nnunet_topo.evaluation.find_best import find_best
    from nnunet_topo.training.journal import json_legal

    # What nnU-Net's functions print on their way would spoil JSON, and hide the table from a reader.
    with redirect_stdout(sys.stderr):
        dataset = dataset_name(arguments.dataset)
        models = trained_models(
            dataset,
            arguments.trainers,
            arguments.plans,
            arguments.configurations,
            skip_untrained=arguments.skip_untrained,
        )
        found = find_best(
            dataset,
            models,
            judge,
            folds=arguments.folds,
            ensembling=not arguments.disable_ensembling,
            processes=arguments.processes,
            overwrite=not arguments.no_overwrite,
        )
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(json_legal(found.information), indent=2))
    else:
        _print(found)
    return 0


def _print(found: BestConfiguration) -> None:
    information = found.information
    means, excluded = information["means"], information["excluded"]
    names = list(next(iter(means.values())))
    print("  ".join([*(f"{name:>12}" for name in names), "candidate"]))
    for candidate, values in means.items():
        remark = " (best)" if candidate == found.best else ""
        remark = f" (left out: {'; '.join(excluded[candidate])})" if candidate in excluded else remark
        print("  ".join([*(f"{values[name]:>12.5f}" for name in names), candidate + remark]))
    best = information["best_model_or_ensemble"]
    before, after = (best[f"result_on_crossval_{when}_pp"] for when in ("pre", "post"))
    print(f"\npostprocessing, judged by {information['metric']} as well: {before:.5f} -> {after:.5f}")
    for line in information["postprocessing"]:
        print(f"  {line}")
    print(f"\n{found.instructions}", end="")
