"""The models and ensembles that are up for choice, with their cross-validated predictions in one folder each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from nnunetv2.ensembling.ensemble import ensemble_crossvalidations
from nnunetv2.evaluation.accumulate_cv_results import accumulate_cv_results
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.file_path_utilities import folds_tuple_to_string, get_ensemble_name, get_output_folder
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_topo.data.descriptions import read_dataset_json, read_plans_file
from nnunet_topo.data.raw import read_json
from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.evaluation.candidate_faults import FAILURES, first_fault

_NAMED = 5


@dataclass(frozen=True)
class Model:
    """A trained configuration, as nnU-Net names it.

    Attributes:
        trainer: class name.
        plans: name of the plans.
        configuration: such as 3d_fullres.
    """

    trainer: str
    plans: str
    configuration: str

    def folder(self, dataset: str) -> Path:
        """Where nnU-Net keeps it."""
        return Path(get_output_folder(dataset, self.trainer, self.plans, self.configuration))


@dataclass(frozen=True)
class Candidate:
    """A model, or the ensemble of two.

    Attributes:
        name: nnU-Net's: the model folder's name, or `ensemble___A___B___FOLDS`.
        folder: predictions of the held-out cases of all folds, with plans.json, dataset.json and summary.json.
        models: one or two.
    """

    name: str
    folder: Path
    models: tuple[Model, ...]


def dataset_name(dataset: str | int) -> str:
    """Folder name of a dataset.

    Args:
        dataset: id or name.

    Raises:
        ConfigError: there is none, or nnU-Net's folders are not set.
    """
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        if not os.environ.get(variable):
            raise ConfigError(
                f"{variable}: expected a folder, got nothing. Set the environment variable, as nnU-Net needs it."
            )
    try:
        return str(maybe_convert_to_dataset_name(dataset))
    except (RuntimeError, ValueError) as error:  # ValueError: neither a number nor Dataset...
        raise ConfigError(
            f"dataset: expected an id or a name, got '{dataset}'. {' '.join(str(error).split())}"
        ) from error


def trained_models(
    dataset: str,
    trainers: Sequence[str],
    plans: Sequence[str],
    configurations: Sequence[str],
    *,
    skip_untrained: bool = False,
) -> list[Model]:
    """All combinations that the plans know and that were trained.

    Args:
        dataset: folder name.
        trainers: class names.
        plans: names of plans.
        configurations: those that no plans know are left out, as nnU-Net does.
        skip_untrained: leave untrained combinations out instead of refusing.

    Returns:
        In nnU-Net's order.

    Raises:
        ConfigError: no such plans, or nothing left.
        DataError: a combination was not trained.
    """
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / dataset
    known = {}
    for name in plans:
        file = preprocessed / f"{name}.json"
        if not file.is_file():
            raise ConfigError(
                f"-p: expected the name of a plans file, got '{name}'. {file} does not exist. Check the dataset and -p."
            )
        known[name] = PlansManager(read_plans_file(file)).available_configurations
    models = [
        Model(trainer, name, configuration)
        for trainer in dict.fromkeys(trainers)
        for configuration in dict.fromkeys(configurations)
        for name in known
        if configuration in known[name]
    ]
    trained = [model for model in models if model.folder(dataset).is_dir()]
    untrained = [model for model in models if model not in trained]
    if not models:
        every = sorted({configuration for names in known.values() for configuration in names})
        raise ConfigError(f"-c: expected one of {', '.join(every)}, got {', '.join(configurations)}. {dataset}.")
    if untrained and (not skip_untrained or not trained):
        results = Path(os.environ["nnUNet_results"]) / dataset
        found = sorted(path.name for path in results.glob("*__*__*")) if results.is_dir() else []
        raise DataError(
            f"models: expected trained ones, got no {_some(model.folder(dataset).name for model in untrained)}. "
            f"{results} holds {', '.join(found) or 'none'}. Train them, or name what is trained with -tr, -p and -c, "
            "or leave the others out with --skip_untrained."
        )
    return trained


def require_predictions(
    dataset: str, models: Sequence[Model], folds: Sequence[int], ground_truth: Path, *, probabilities: bool
) -> None:
    """Refuse before any work what would fail in the middle of it.

    Args:
        dataset: folder name.
        models: to be looked at.
        folds: all of them must have been validated.
        ground_truth: folder of reference segmentations.
        probabilities: whether the ensembles' .npz files are needed, too.

    Raises:
        DataError: a fold, a case, its reference or its probabilities are missing, or the models were validated on other
            cases.
    """
    predicted = {model: _predicted_cases(dataset, model, folds, probabilities) for model in models}
    first, *others = predicted
    for other in others:
        different = sorted(predicted[first] ^ predicted[other])
        if different:
            raise DataError(
                f"cases: expected the same in all models, got {_some(different)} in only one of "
                f"{first.folder(dataset).name} and {other.folder(dataset).name}. "
                "Validate both on the same cases (equal splits, or all folds)."
            )
    ending = read_dataset_json(first.folder(dataset) / "dataset.json")["file_ending"]
    without = [case for case in sorted(predicted[first]) if not (ground_truth / f"{case}{ending}").is_file()]
    if without:
        raise DataError(
            f"ground truth: expected a file *{ending} for every predicted case, got none for {_some(without)}. "
            f"{ground_truth}. Restore these label files; they are those of the training cases."
        )


def _predicted_cases(dataset: str, model: Model, folds: Sequence[int], probabilities: bool) -> set[str]:
    """Cases of all folds; DataError where one is not as it must be."""
    folder = model.folder(dataset)
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).is_file():
            raise DataError(f"{name}: expected it in the model's folder, got none. {folder}. Train the model again.")
    read_plans_file(folder / "plans.json")
    ending = read_dataset_json(folder / "dataset.json")["file_ending"]
    every: set[str] = set()
    for fold in folds:
        validation = folder / f"fold_{fold}" / "validation"
        command = f"nnUNetv2_train {dataset} {model.configuration} {fold} -tr {model.trainer} -p {model.plans}"
        cases = {path.name.removesuffix(ending) for path in validation.glob(f"*{ending}")}
        if not cases:
            trained = (validation.parent / "checkpoint_final.pth").is_file()
            raise DataError(
                f"fold {fold}: expected predictions of its validation cases, got none. {validation}. "
                f"Run '{command}{' --val' if trained else ''} --npz', or name the folds that are trained with -f."
            )
        if cases & every:
            raise DataError(f"fold {fold}: expected cases of no other fold, got {_some(cases & every)}. {validation}.")
        every |= cases
        without = [case for case in sorted(cases) if not (validation / f"{case}.npz").is_file()]
        if probabilities and without:
            raise DataError(
                f"fold {fold}: expected probabilities (.npz) for the ensembles, got none for {_some(without)}. "
                f"{validation}. Run '{command} --val --npz', or use --disable_ensembling."
            )
    return every


def gather_candidates(
    dataset: str,
    models: Sequence[Model],
    folds: Sequence[int],
    ground_truth: Path,
    *,
    ensembling: bool,
    processes: int,
    overwrite: bool,
) -> list[Candidate]:
    """Collect each model's cross-validated predictions, and make those of the ensembles.

    Args:
        dataset: folder name.
        models: what `require_predictions` let through.
        folds: to be collected.
        ground_truth: folder of reference segmentations.
        ensembling: whether pairs of models are candidates, too.
        processes: worker processes.
        overwrite: make again what is there already.

    Returns:
        Single models first.
    """
    candidates = []
    for model in models:
        folder = model.folder(dataset)
        merged = folder / f"crossval_results_folds_{folds_tuple_to_string(folds)}"
        with _naming(folder.name, [folder], folds, ground_truth):
            accumulate_cv_results(str(folder), str(merged), folds, processes, overwrite)
        candidates.append(Candidate(folder.name, merged, (model,)))
    for pair in combinations(models, 2) if ensembling else ():
        folders = [model.folder(dataset) for model in pair]
        name = get_ensemble_name(*map(str, folders), folds)
        output = Path(os.environ["nnUNet_results"]) / dataset / "ensembles" / name
        if overwrite and output.is_dir():
            shutil.rmtree(output)
        with _naming(name, folders, folds, ground_truth):
            ensemble_crossvalidations([*map(str, folders)], str(output), folds, processes, overwrite=overwrite)
            write_stock_summary(output, ground_truth, processes)
        candidates.append(Candidate(name, output, pair))
    return candidates


@contextmanager
def _naming(candidate: str, models: Sequence[Path], folds: Sequence[int], ground_truth: Path) -> Iterator[None]:
    """What nnU-Net's functions raise over a damaged file says neither which model it is nor what to do."""
    try:
        yield
    except FAILURES as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}. Check its plans.json and dataset.json."
        fault = first_fault(models, folds, ground_truth, probabilities=len(models) > 1)
        raise DataError(f"{candidate}: expected files that nnU-Net can collect, got: {fault or said}") from error


def write_stock_summary(folder: Path, ground_truth: Path, processes: int) -> None:
    """Write nnU-Net's own summary.json of a folder of predictions.

    Args:
        folder: with plans.json and dataset.json.
        ground_truth: folder of reference segmentations.
        processes: worker processes.
    """
    plans = PlansManager(str(folder / "plans.json"))
    dataset_json = read_json(folder / "dataset.json")
    labels = plans.get_label_manager(dataset_json)
    compute_metrics_on_folder(
        str(ground_truth),
        str(folder),
        str(folder / "summary.json"),
        plans.image_reader_writer_class(),
        dataset_json["file_ending"],
        labels.foreground_regions if labels.has_regions else labels.foreground_labels,
        labels.ignore_label,
        processes,
    )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
