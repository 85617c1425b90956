"""The stock command lines on synthetic data: a small part of what run_stock_commands.py does, for every test run."""

from __future__ import annotations

import pytest
from stock_bad_input import (
    BAD_RECIPES,
    BadRecipe,
    refuse_foreign_label,
    refuse_other_recipe,
    refuse_recipe_file,
    refuse_unknown_recipe,
)
from stock_harness import Bench
from stock_scenarios import synthetic_small
from stock_training import Model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("stock"), quiet=True)


@pytest.fixture(scope="module")
def trained(bench: Bench) -> Model:
    """Synth, check, plan, train, kill -9, --c, --val and predict, each of which fails here if it does not work."""
    return synthetic_small(bench)


def test_a_training_survives_a_kill_and_predicts(bench: Bench, trained: Model) -> None:
    assert [row.step for row in bench.rows if not row.ok] == []
    assert (trained.folder(bench.results) / "fold_0" / "checkpoint_final.pth").is_file()


def test_unknown_recipe_is_refused(bench: Bench, trained: Model) -> None:
    refuse_unknown_recipe(bench, trained)


@pytest.mark.parametrize("bad", BAD_RECIPES, ids=lambda bad: bad.what)
def test_bad_recipe_is_refused(bench: Bench, trained: Model, bad: BadRecipe) -> None:
    refuse_recipe_file(bench, trained, bad)


def test_another_recipe_than_the_checkpoints_is_refused(bench: Bench, trained: Model) -> None:
    refuse_other_recipe(bench, trained)


def test_a_label_outside_dataset_json_is_refused(bench: Bench, trained: Model) -> None:
    refuse_foreign_label(bench, trained)
