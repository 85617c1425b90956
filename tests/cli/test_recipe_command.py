import argparse
import json

import pytest
import yaml

from nnunet_topo.cli import recipe as command
from nnunet_topo.errors import ConfigError
from nnunet_topo.recipe import builtin_recipes, load_recipe, recipe_from_mapping

DIARY = {
    "num_epochs": 40,
    "learning_rate": 0.001,
    "weight_decay": 0.0001,
    "scheduler_type": "poly",
    "surface_magic": 3,
    "loss_weights": {"dice_weight": 1.0},
}


def run(*argv):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["recipe", *map(str, argv)])
    return arguments.run(arguments)


def test_list_shows_every_recipe_with_its_purpose(capsys):
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *builtin_recipes()]
    stock = next(line for line in lines if line.startswith("nnunet "))
    assert stock.split()[1:3] == ["1000", "nnunet"]
    assert stock.endswith("stock nnU-Net, the control of every comparison.")


def test_list_as_json(capsys):
    assert run("list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(builtin_recipes())
    assert rows["progressive"]["terms"] == ["dice", "focal", "variance", "boundary"]
    assert rows["v8_dice_only"]["epochs"] == 100


@pytest.mark.parametrize("name", ["nnunet", "v4", "v9_progressive"])
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_show_prints_the_resolved_recipe(capsys, name, flags):
    assert run("show", name, *flags) == 0
    content = (json.loads if flags else yaml.safe_load)(capsys.readouterr().out)
    assert content == load_recipe(name).to_mapping()
    assert content["iterations_per_epoch"] == 250


def test_show_and_check_of_an_unknown_recipe():
    for action in ("show", "check"):
        with pytest.raises(ConfigError, match="Did you mean 'progressive'"):
            run(action, "progresive")


def test_check_of_a_trainable_recipe(capsys):
    assert run("check", "progressive") == 0
    out = capsys.readouterr().out
    assert out.startswith("ok: progressive, 1000 epochs, sgd at 0.01")
    assert "from epoch 103: dice 0.8, focal 0.2" in out
    assert "note:" not in out


def test_check_remarks_what_can_hardly_be_meant(capsys):
    assert run("check", "v9_progressive") == 0
    out = capsys.readouterr().out
    assert out.startswith("ok: ")
    assert "note: losses.cldice: no phase gives this term a weight" in out
    assert run("check", "v9_progressive", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["phase_starts"] == [0, 31, 61]
    assert any("losses.cldice" in remark for remark in report["remarks"])


def test_check_of_a_wrong_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nphases:\n  - {from: 3, weights: {dice: 1}}\n")
    with pytest.raises(ConfigError, match=r"phases\.0\.from: expected 0"):
        run("check", path)


def test_check_shows_ramps(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nphases:\n- {from: 0, weights: {dice: 1}}\n- {from: 9, weights: {ce: 1}, ramp_epochs: 5}\n"
    )
    assert run("check", path) == 0
    assert "from epoch 9: ce 1, reached over 5 epochs" in capsys.readouterr().out


def test_import_prints_a_recipe_and_warns_on_stderr(tmp_path, capsys):
    path = tmp_path / "config_v8.yaml"
    path.write_text(yaml.safe_dump(DIARY))
    assert run("import", path) == 0
    captured = capsys.readouterr()
    imported = tmp_path / "imported.yaml"
    imported.write_text(captured.out)
    recipe = load_recipe(imported)
    assert (recipe.name, recipe.epochs, recipe.optimizer.lr) == ("v8", 40, 1e-3)
    assert "warning: " in captured.err
    assert "surface_magic: unknown key" in captured.err
    assert run("check", imported) == 0
    capsys.readouterr()
    assert run("import", path, "--json") == 0
    assert recipe_from_mapping(json.loads(capsys.readouterr().out), "json") == recipe


def test_an_action_is_required(capsys):
    with pytest.raises(SystemExit):
        run()
    assert "ACTION" in capsys.readouterr().err
