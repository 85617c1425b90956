import pytest

from nnunet_topo.errors import DataError
from nnunet_topo.training.data_checks import require_usable_data
from nnunet_topo.training.trainers import nnUNetTrainerTopoSurface


def test_a_cascade_without_all_predictions_of_its_first_stage_is_refused(make_trainer, tmp_path):
    trainer = make_trainer(nnUNetTrainerTopoSurface)
    trainer.initialize()
    cases = sorted(case for keys in trainer.do_split() for case in keys)
    trainer.folder_with_segs_from_previous_stage = str(tmp_path / "predicted")
    with pytest.raises(DataError, match=f"got none for {cases[0]}.*Train all folds of .* -tr nnUNetTrainerTopoSurface"):
        trainer.on_train_start()
    (tmp_path / "predicted").mkdir()
    for case in cases[:-1]:
        (tmp_path / "predicted" / f"{case}.b2nd").touch()
    with pytest.raises(DataError, match=f"got none for {cases[-1]}. "):
        require_usable_data(trainer)
    (tmp_path / "predicted" / f"{cases[-1]}.b2nd").touch()
    require_usable_data(trainer)
