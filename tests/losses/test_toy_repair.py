"""benchmarks/toy_repair.py: four topological errors that the recipes' losses mend, and its committed table."""

import importlib.util
import json
from pathlib import Path

import pytest

from nnunet_topo.losses import TERMS
from nnunet_topo.metrics import betti_errors, betti_matching_error

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def toy():
    spec = importlib.util.spec_from_file_location("toy_repair", ROOT / "benchmarks" / "toy_repair.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_start_has_one_error_in_each_box_and_none_elsewhere(toy):
    truth, start = toy.make_problem()
    assert betti_matching_error(start, truth) == 4
    mended = start.copy()
    for box in toy.ERRORS.values():
        assert any(betti_errors(start[box], truth[box]))
        mended[box] = truth[box]
    assert (mended == truth).all()


@pytest.mark.parametrize("recipe", ["surface", "vessel", "membrane"])
def test_the_losses_of_a_recipe_mend_all_four_and_break_nothing(toy, recipe):
    result = toy.fit(recipe, steps=80)
    assert all(step is not None for step in result["mended"].values())
    assert (result["missed_voxels"], result["false_voxels"], result["betti_matching_error"]) == (0, 0, 0)


def test_separation_mends_the_bridge_and_nothing_else(toy):
    mended = toy.fit("separation", steps=40)["mended"]
    assert mended["bridge"] is not None
    assert [error for error, step in mended.items() if step is None] == ["gap", "hole", "speck"]


def test_connectivity_mends_gap_hole_and_bridge(toy):
    mended = toy.fit("connectivity", steps=50)["mended"]
    assert [error for error, step in mended.items() if step is None] == ["speck"]


def test_the_committed_table_has_every_term(toy):
    document = json.loads((ROOT / "benchmarks" / "results" / "toy_repair.json").read_text(encoding="utf-8"))
    assert set(document["results"]) >= {"ce + dice", *TERMS, *toy.RECIPES}
    table = (ROOT / "benchmarks" / "results" / "toy_repair.md").read_text(encoding="utf-8")
    assert all(f"| `{term}` |" in table for term in TERMS)
