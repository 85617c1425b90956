"""What must be true of the preprocessed data before a training starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2.configuration import default_num_processes

from nnunet_topo.data.labels import require_declared_labels
from nnunet_topo.errors import DataError

if TYPE_CHECKING:
    from nnunet_topo.training.trainers import nnUNetTrainerTopo


def require_usable_data(trainer: nnUNetTrainerTopo) -> None:
    """Refuse labels that dataset.json does not declare, and a cascade whose first stage has not predicted every case.

    nnU-Net would find out in a worker process, whose error says neither which cases nor what to do.

    Raises:
        DataError: names files or cases, and the mend.
    """
    require_declared_labels(trainer.preprocessed_dataset_folder, trainer.dataset_json, processes=default_num_processes)
    if trainer.folder_with_segs_from_previous_stage is None:
        return
    folder = Path(trainer.folder_with_segs_from_previous_stage)
    predicted = {path.stem for path in folder.iterdir()} if folder.is_dir() else set()
    cases = sorted({case for keys in trainer.do_split() for case in keys})
    missing = [case for case in cases if case not in predicted]
    if missing:
        listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        stage = trainer.configuration_manager.previous_stage_name
        raise DataError(
            f"previous stage: expected a prediction of {stage} for each of {len(cases)} cases, got none for {listed}. "
            f"{folder}. Train all folds of {stage} with -tr {type(trainer).__name__} and the same plans first."
        )
