"""Foreground shares, the failures that they show, and the choice among folders."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.evaluation.balance import Balance, CaseBalance, measure_balance, select_balanced
from nnunet_topo.evaluation.balance_figure import draw_balance, text_histogram

SHAPE = (5, 7, 9)


def write(folder: Path, volumes: Mapping[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for case, labels in volumes.items():
        sitk.WriteImage(sitk.GetImageFromArray(labels.astype(np.uint8)), folder / f"{case}.nii.gz")
    return folder


def filled(voxels: int, value: int = 1) -> np.ndarray:
    """A volume whose first voxels have a value."""
    labels = np.zeros(math.prod(SHAPE), np.uint8)
    labels[:voxels] = value
    return labels.reshape(SHAPE)


@pytest.fixture
def declare(tmp_path: Path) -> Callable[..., Path]:
    def write_dataset_json(**labels: object) -> Path:
        (tmp_path / "labelsTr").mkdir(exist_ok=True)
        dataset = {"labels": {"background": 0, **labels}, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}}
        if any(isinstance(value, list) for value in labels.values()):
            dataset["regions_class_order"] = [1, 2]
        (tmp_path / "dataset.json").write_text(json.dumps(dataset))
        return tmp_path / "labelsTr"

    return write_dataset_json


def balance(*shares: tuple[float, float], name: str = "a") -> Balance:
    """A folder whose cases have these labelled and predicted shares."""
    cases = [
        CaseBalance(f"c{number}", 10_000, round(10_000 * labelled), round(10_000 * predicted))
        for number, (labelled, predicted) in enumerate(shares)
    ]
    return Balance(Path(name), tuple(cases))


def findings(*shares: tuple[float, float]) -> list[str]:
    return [finding.name for finding in balance(*shares).findings]


def test_shares_leave_ignored_voxels_out(tmp_path: Path, declare: Callable[..., Path]) -> None:
    labels = declare(sheet=1, ignore=2)
    truth = filled(30)
    truth[3:] = 2  # 126 of 315 voxels
    write(labels, {"c": truth})
    found = measure_balance(labels, write(tmp_path / "predicted", {"c": filled(315)})).cases[0]
    assert found.voxels == 315 - 126
    assert found.labelled_share == 30 / 189
    assert found.predicted_share == 1.0
    assert found.ratio == pytest.approx(189 / 30)


def test_all_foreground_labels_count_together_or_one_alone(tmp_path: Path, declare: Callable[..., Path]) -> None:
    labels = declare(first=1, second=2)
    write(labels, {"c": filled(40, 1) + filled(10, 1)})  # 10 voxels of 2, 30 of 1
    predictions = write(tmp_path / "predicted", {"c": filled(20, 2)})
    together = measure_balance(labels, predictions).cases[0]
    assert (together.labelled, together.predicted) == (40, 20)
    alone = measure_balance(labels, predictions, label=2).cases[0]
    assert (alone.labelled, alone.predicted) == (10, 20)
    with pytest.raises(ConfigError, match="1, 2"):
        measure_balance(labels, predictions, label=3)


def test_regions_count_their_voxels_once(tmp_path: Path, declare: Callable[..., Path]) -> None:
    labels = declare(whole=[1, 2], core=2)
    write(labels, {"c": filled(40, 1) + filled(10, 1)})
    found = measure_balance(labels, write(tmp_path / "predicted", {"c": filled(40, 1)})).cases[0]
    assert (found.labelled, found.predicted) == (40, 40)


def test_without_dataset_json_everything_but_0_is_foreground(tmp_path: Path) -> None:
    truth = write(tmp_path / "deep" / "truth", {"c": filled(50, 2)})
    found = measure_balance(truth, write(tmp_path / "other" / "predicted", {"c": filled(25, 1)})).cases[0]
    assert (found.voxels, found.labelled, found.predicted) == (315, 50, 25)
    ignored = measure_balance(truth, tmp_path / "other" / "predicted", ignore_label=0).cases[0]
    assert (ignored.voxels, ignored.labelled, ignored.predicted) == (50, 50, 25)


def test_what_cannot_be_read_is_named_and_the_rest_is_counted(tmp_path: Path, declare: Callable[..., Path]) -> None:
    labels = declare(sheet=1, ignore=2)
    write(labels, {"good": filled(9), "small": filled(9), "odd": filled(9), "blank": filled(315, 2), "cut": filled(9)})
    write(labels, {"unpredicted": filled(9)})
    predictions = write(tmp_path / "predicted", {case: filled(18) for case in ("good", "blank", "cut", "unlabelled")})
    write(predictions, {"small": filled(9)[:3], "odd": filled(9, 7)})
    file = predictions / "cut.nii.gz"
    file.write_bytes(file.read_bytes()[:-20])
    found = measure_balance(labels, predictions)
    assert [case.case for case in found.cases] == ["good"]
    assert sorted(found.problems) == ["blank", "cut", "odd", "small", "unlabelled"]
    assert "7" in found.problems["odd"]
    assert "ignored" in found.problems["blank"]


def test_no_case_at_all_is_an_error(tmp_path: Path) -> None:
    truth = write(tmp_path / "truth", {"c": filled(5)})
    with pytest.raises(DataError, match="predicted"):
        measure_balance(truth, write(tmp_path / "predicted", {}))
    with pytest.raises(ConfigError, match="folder"):
        measure_balance(truth, tmp_path / "nowhere")


@pytest.mark.slow
def test_several_processes_find_the_same(tmp_path: Path, declare: Callable[..., Path]) -> None:
    labels = write(declare(sheet=1), {f"c{number}": filled(10 * number) for number in range(4)})
    predictions = write(tmp_path / "predicted", {f"c{number}": filled(12 * number) for number in range(4)})
    assert measure_balance(labels, predictions, processes=2) == measure_balance(labels, predictions)


def test_ratio_and_imbalance() -> None:
    found = balance((0.1, 0.2), (0.2, 0.1), (0.1, 0.1))
    assert [case.ratio for case in found.cases] == [2.0, 0.5, 1.0]
    assert found.median_ratio == 1.0
    # Twice and half are equally far off.
    assert found.imbalance == pytest.approx(math.log(2))
    assert balance((0.0, 0.0)).imbalance == 0.0
    assert balance((0.0, 0.3)).imbalance == math.inf
    assert balance((0.3, 0.0)).imbalance == math.inf


def test_nearly_all_foreground_is_named() -> None:
    assert findings((0.05, 0.9988), (0.08, 0.95), (0.17, 0.99)) == ["nearly all foreground"]
    assert findings((0.05, 0.06), (0.08, 0.95), (0.17, 0.2)) == ["nearly all foreground"]
    assert findings((0.95, 0.97), (0.9, 0.93)) == []


def test_empty_predictions_are_named() -> None:
    assert findings((0.05, 0.04), (0.08, 0.0), (0.17, 0.2)) == ["empty"]
    # Nothing labelled, nothing predicted: right.
    assert findings((0.05, 0.04), (0.0, 0.0), (0.17, 0.2)) == []


def test_uniform_predictions_are_named() -> None:
    assert findings((0.05, 0.3), (0.08, 0.3), (0.17, 0.3002)) == ["uniform"]
    assert findings((0.05, 0.9988), (0.08, 0.9988), (0.17, 0.9988)) == ["nearly all foreground", "uniform"]
    # Equal labels don't tell, nor do two cases.
    assert findings((0.1, 0.1), (0.1, 0.1), (0.1, 0.1)) == []
    assert findings((0.05, 0.3), (0.17, 0.3)) == []


def test_a_failure_in_half_of_the_cases_is_general() -> None:
    assert [finding.general for finding in balance((0.1, 0.0), (0.2, 0.2), (0.1, 0.1)).findings] == [False]
    assert [finding.general for finding in balance((0.1, 0.0), (0.2, 0.2)).findings] == [True]


def test_the_best_balanced_folder_is_selected() -> None:
    over = balance((0.1, 0.2), (0.2, 0.35), name="over")
    good = balance((0.1, 0.11), (0.2, 0.19), name="good")
    under = balance((0.1, 0.05), (0.2, 0.12), name="under")
    assert select_balanced([over, good, under]).folder == Path("good")
    assert select_balanced([under, over]).folder == Path("under")


def test_a_folder_that_fails_is_not_selected() -> None:
    # The same share everywhere, and by chance the right one in most cases.
    uniform = balance((0.1, 0.1), (0.1, 0.1), (0.1, 0.1), (0.3, 0.1), name="uniform")
    honest = balance((0.1, 0.13), (0.1, 0.08), (0.1, 0.12), (0.3, 0.25), name="honest")
    assert uniform.imbalance < honest.imbalance
    assert select_balanced([uniform, honest]).folder == Path("honest")
    with pytest.raises(DataError, match="uniform"):
        select_balanced([uniform])


def test_selection_looks_at_shared_cases_alone() -> None:
    # Over all of its cases the first is better; over those that both hold it is not.
    first = balance((0.1, 0.3), (0.1, 0.1), (0.1, 0.1), name="first")
    second = balance((0.1, 0.15), name="second")
    assert first.imbalance < second.imbalance
    assert select_balanced([first, second]).folder == Path("second")
    other = Balance(Path("other"), (CaseBalance("elsewhere", 10, 1, 1),))
    with pytest.raises(DataError, match="other"):
        select_balanced([first, other])


def test_the_histogram_counts_every_case_once() -> None:
    shares = [(0.05, 0.01), (0.0, 0.0), (0.11, 0.5), (0.12, 1.0), (0.5, 1.0)]
    heading, *lines = text_histogram(balance(*shares).cases)
    assert "labelled" in heading
    counts = np.array(
        [[int(number) for number in line[17:].replace("#", " ").split()] for line in lines if "#" in line], dtype=object
    )
    assert sum(sum(row) for row in counts) == 2 * len(shares)
    assert max(len(line) for line in [heading, *lines]) <= 80
    assert "100.00%" in lines[-1]
    assert "110.00%" not in lines[-1]


@pytest.mark.parametrize("shares", [[(0.0, 0.0)], [(1.0, 1.0)], [(0.0004, 0.0002)], [(0.1, 1.0), (0.0, 0.0)]])
def test_pictures_of_extreme_shares(tmp_path: Path, shares: list[tuple[float, float]]) -> None:
    text_histogram(balance(*shares).cases)
    draw_balance([balance(*shares, name="$odd$_{name"), balance(*shares)], tmp_path / "balance.png")
    assert (tmp_path / "balance.png").read_bytes().startswith(b"\x89PNG")
