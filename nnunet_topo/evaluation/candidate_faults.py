"""Which file of a validation or of the ground truth is at fault, once nnU-Net has failed over one of them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from nnunet_topo.data.check import reader_of
from nnunet_topo.data.check_case import READ_ERRORS
from nnunet_topo.data.descriptions import read_dataset_json
from nnunet_topo.errors import DataError
from nnunet_topo.evaluation.cases import Case, read_case

FAILURES = (*READ_ERRORS, BadZipFile, pickle.UnpicklingError)
"""What nnU-Net's functions raise over damaged files."""


def first_fault(models: Sequence[Path], folds: Sequence[int], ground_truth: Path, *, probabilities: bool) -> str | None:
    """The first file that cannot be read or does not fit, and what to do about it; None if every file is sound.

    nnU-Net's own message often names neither file nor folder. All files are read again, so it is for after a failure.

    Args:
        models: folders of trained models.
        folds: of the cross-validation.
        ground_truth: folder of reference segmentations.
        probabilities: whether .npz and .pkl files are needed, too.
    """
    validations = [model / f"fold_{fold}" / "validation" for model in models for fold in folds]
    faults = (fault for folder in validations for fault in _faults(folder, ground_truth, probabilities))
    return next(faults, None)


def _faults(validation: Path, ground_truth: Path, probabilities: bool) -> Iterator[str]:
    content = read_dataset_json(validation.parents[1] / "dataset.json")
    ending = content["file_ending"]
    predictions = sorted(validation.glob(f"*{ending}"))
    reader = reader_of(content, [*predictions, *(ground_truth / path.name for path in predictions)])
    for prediction in predictions:
        case = prediction.name.removesuffix(ending)
        if reader is not None:
            try:
                read_case(Case(case, ground_truth / prediction.name, prediction), reader)
            except DataError as error:
                yield str(error)
        for path in (validation / f"{case}.npz", validation / f"{case}.pkl") if probabilities else ():
            try:
                _load(path)
            except FAILURES as error:
                yield (
                    f"{path.name}: expected a file that can be read, got {type(error).__name__}: {error}. {path}. "
                    "Validate the fold again (nnUNetv2_train ... --val --npz)."
                )


def _load(path: Path) -> None:
    with path.open("rb") as stream:
        if path.suffix == ".npz":
            np.load(stream, allow_pickle=False)["probabilities"]
        else:
            pickle.load(stream)  # as nnU-Net does, which wrote it
