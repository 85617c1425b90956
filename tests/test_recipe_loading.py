import re

import pytest
import yaml

from nnunet_topo.errors import ConfigError
from nnunet_topo.recipe import builtin_recipes, load_recipe, plans_directory

MINIMAL = {"name": "mine", "phases": [{"from": 0, "weights": {"dice": 1.0}}]}


def write(folder, content, name="mine.yaml"):
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_load_by_name_and_by_path(tmp_path):
    path = write(tmp_path, "name: mine\nphases:\n  - {from: 0, weights: {dice: 1e-1}}\n")
    assert load_recipe(path).phases[0].weights["dice"] == 0.1
    assert load_recipe(str(path)) == load_recipe(path)
    assert load_recipe("nnunet").active_terms() == ("nnunet",)


def test_a_relative_path_with_suffix_is_a_path(tmp_path, monkeypatch):
    write(tmp_path, yaml.safe_dump(MINIMAL), "nnunet.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_recipe("nnunet.yaml").name == "mine"
    assert load_recipe("nnunet").name == "nnunet"


@pytest.mark.parametrize(
    ("wanted", "suggestion"), [("v9-progressive", "v9_progressive"), ("progresive", "progressive")]
)
def test_unknown_recipe_names_the_nearest(wanted, suggestion):
    with pytest.raises(ConfigError, match=f"got '{wanted}'. Did you mean '{suggestion}'") as caught:
        load_recipe(wanted)
    assert "v2_fixed" in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"No such file.*absent\.yaml"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="directory"):
        load_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: café".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml\. Save it as UTF-8 text"):
        load_recipe(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "got an empty file"),
        ("# only a comment\n", "got an empty file"),
        ("name: a\nphases: [\n", "line 3"),
        ("name: a\n\tphases: 1\n", "line 2"),
        ("name: a\nname: b\nphases: []\n", "key 'name' occurs twice. {file}, line 2"),
        ("name: a\nphases:\n  - {from: 0, weights: {dice: 1, dice: 2}}\n", "key 'dice' occurs twice. {file}, line 3"),
        ("name: a\n---\nname: b\n", "line 2"),
        ("name: !!python/object/apply:os.getcwd []\n", "line 1"),
        ("name: a\nphases: &x [*x]\n", "line 2"),
        ("name: a\nepochs: 2020-13-45\n", "{file}"),
        ("- name: a\n", "expected a mapping"),
        ("just text\n", "expected a mapping"),
        ("[a]: b\n", "line 1"),
        ("1: b\n", "1: unknown key"),
        ("name: a\nphases: " + "[" * 3000 + "\n", "{file}"),
        ("name: a\nepochs: " + "9" * 5000 + "\n", "{file}"),
    ],
)
def test_bad_file_names_file_and_line(tmp_path, content, part):
    path = write(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert part.format(file=path) in str(caught.value)
    assert str(path) in str(caught.value)


def test_file_that_is_not_text(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load_recipe(path)
    path.write_bytes(b"name: \x00\n")
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load_recipe(path)


def test_plans_directory_prefers_the_installed_copy(tmp_path, monkeypatch):
    import nnunet_topo.recipe

    package = tmp_path / "nnunet_topo"
    package.mkdir()
    monkeypatch.setattr(nnunet_topo.recipe, "__file__", str(package / "recipe.py"))
    with pytest.raises(ConfigError, match="Install nnunet-topo again"):
        plans_directory()
    beside, inside = tmp_path / "plans", package / "plans"
    beside.mkdir()
    with pytest.raises(ConfigError, match="Install"):
        plans_directory()  # someone else's folder of that name does not count
    write(beside, yaml.safe_dump(MINIMAL), "nnunet.yaml")
    assert plans_directory() == beside
    inside.mkdir()
    assert plans_directory() == beside
    write(inside, yaml.safe_dump(MINIMAL), "nnunet.yaml")
    assert plans_directory() == inside
    assert list(builtin_recipes()) == ["nnunet"]
