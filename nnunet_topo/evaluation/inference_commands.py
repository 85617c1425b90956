"""The commands that predict new cases with the chosen model or ensemble: nnU-Net's text, made to run as printed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from nnunetv2.evaluation.find_best_configuration import generate_inference_command, print_inference_instructions
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_topo.evaluation.candidates import Model


def inference_instructions(information: Mapping[str, Any], models: Sequence[Model]) -> str:
    """What nnU-Net's find_best_configuration writes into inference_instructions.txt.

    Two things are mended: the stage that a cascade needs is predicted first, which nnU-Net leaves out, and paths are
    quoted where a shell wants it.

    Args:
        information: content of inference_information.json.
        models: the chosen ones, in its order.

    Returns:
        The text, with INPUT_FOLDER and OUTPUT_FOLDER to be replaced.
    """
    with redirect_stdout(StringIO()) as stream:
        print_inference_instructions(dict(information))
    text = stream.getvalue().lstrip("\n")
    best, dataset, folds = (information[key] for key in ("best_model_or_ensemble", "dataset_name_or_id", "folds"))
    for path in (best["postprocessing_file"], best["some_plans_file"]):
        text = text.replace(path, shlex.quote(path))
    ensemble = len(models) > 1
    for number, model in enumerate(models, start=1):
        output = f"OUTPUT_FOLDER_MODEL_{number}" if ensemble else "OUTPUT_FOLDER"
        commands = _commands(dataset, model, folds, output, probabilities=ensemble)
        text = text.replace(f"{_stock_command(dataset, model, folds, output, ensemble)}\n", "\n".join(commands) + "\n")
    return text


def _commands(dataset: str, model: Model, folds: Sequence[int], output: str, *, probabilities: bool) -> list[str]:
    """The model's own command, and before it those of the stages that it builds on."""
    plans = PlansManager(str(model.folder(dataset) / "plans.json"))
    previous = plans.get_configuration(model.configuration).previous_stage_name
    if previous is None:
        return [_stock_command(dataset, model, folds, output, probabilities)]
    # nnU-Net trains a cascade on the previous stage of the same trainer and plans.
    stage = Model(model.trainer, model.plans, previous)
    before = f"{output}_PREV_STAGE"
    return [
        *_commands(dataset, stage, folds, before, probabilities=False),
        _stock_command(dataset, model, folds, output, probabilities, before),
    ]


def _stock_command(
    dataset: str, model: Model, folds: Sequence[int], output: str, probabilities: bool, before: str | None = None
) -> str:
    return str(
        generate_inference_command(
            dataset,
            model.configuration,
            model.plans,
            model.trainer,
            folds,
            folder_with_segs_from_prev_stage=before,
            output_folder=output,
            save_npz=probabilities,
        )
    )
