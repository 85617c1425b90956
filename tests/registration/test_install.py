"""Real installs, real nnU-Net: each way in which people have the two beside each other."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
OURS = (
    "nnUNetTrainerTopo",
    "nnUNetTrainerTopoProgressive",
    "nnUNetTrainerTopoSurface",
    "nnUNetTrainerTopoVessel",
)
MODULE = "nnunet_topo.training.trainers"
STOCK = "nnUNetTrainer"
VARIANT = "nnUNetTrainer_5epochs"

IDENTITY = """
import multiprocessing, pickle, sys
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
def in_child(name):
    return find(name)
if __name__ == "__main__":
    for name in sys.argv[1:]:
        found = find(name)
        assert found is find(name)
        assert pickle.loads(pickle.dumps(found)) is found
        assert found is getattr(sys.modules[found.__module__], name)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(in_child, (name,)) is found
    print("same")
"""
MINE = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_topo.training.trainers import nnUNetTrainerTopo
class nnUNetTrainerMine(nnUNetTrainer): pass
class nnUNetTrainerTopoMine(nnUNetTrainerTopo): pass
"""


def assert_found_in(environment: Any, package: Path, **variables: str) -> None:
    found = environment.find(*OURS, **variables)
    assert {name: module for name, (module, _) in found.items()} == dict.fromkeys(OURS, MODULE)
    assert {file.resolve() for _, file in found.values()} == {(package / "training" / "trainers.py").resolve()}


@pytest.fixture
def folder_of_trainers(tmp_path: Path) -> Path:
    """A user's own folder of trainers."""
    folder = tmp_path / "own trainers"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    return folder


def test_wheel_beside_nnunet(environment: Any) -> None:
    assert_found_in(environment, environment.site / "nnunet_topo")


def test_wheel_finds_its_recipes(environment: Any) -> None:
    code = "from nnunet_topo.recipe import builtin_recipes, load_recipe; load_recipe('progressive')\n"
    run = environment.run("-c", code + "for path in builtin_recipes().values(): print(path)")
    assert run.returncode == 0, run.stderr
    paths = [Path(line) for line in run.stdout.splitlines()]
    assert {path.name for path in paths} == {path.name for path in (REPOSITORY / "plans").glob("*.yaml")}
    assert {path.parent.resolve() for path in paths} == {(environment.site / "nnunet_topo" / "plans").resolve()}


def test_console_command(environment: Any) -> None:
    run = environment.run(environment.folder / "bin" / "nnunet-topo", "--version")
    assert run.stdout.startswith("nnunet-topo "), run.stderr


def test_editable_install(make_environment: Callable[..., Any]) -> None:
    environment = make_environment()
    environment.pip("install", "-e", REPOSITORY)
    assert_found_in(environment, REPOSITORY / "nnunet_topo")
    assert not (environment.site / "nnunet_topo").exists()
    code = "from nnunet_topo.recipe import plans_directory; print(plans_directory())"
    assert Path(environment.run("-c", code).stdout.strip()).resolve() == REPOSITORY / "plans"


def test_nnunet_in_another_site_folder(make_environment: Callable[..., Any], wheel: Path) -> None:
    environment = make_environment("other")
    environment.pip("install", wheel)
    assert not (environment.site / "nnunetv2").exists()
    assert_found_in(environment, environment.site / "nnunet_topo")


def test_nnunet_itself_editable(make_environment: Callable[..., Any], wheel: Path, tmp_path: Path) -> None:
    (installed,) = importlib.util.find_spec("nnunetv2").submodule_search_locations
    shutil.copytree(installed, tmp_path / "nnunetv2", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "nnunetv2"\nversion = "{importlib.metadata.version("nnunetv2")}"\n'
        '[tool.setuptools.packages.find]\ninclude = ["nnunetv2*"]\n'
    )
    environment = make_environment(without=["nnunetv2"])
    environment.pip("install", "-e", tmp_path)
    environment.pip("install", wheel)
    # That nnU-Net now comes through setuptools' own finder, which ours has to work with.
    assert list(environment.site.glob("__editable___nnunetv2*_finder.py"))
    assert Path(environment.find(STOCK)[STOCK][1]).is_relative_to(tmp_path)
    assert_found_in(environment, environment.site / "nnunet_topo")


def test_trainers_of_the_user_s_folder_and_ours(
    environment: Any, torchvision: dict[str, str], folder_of_trainers: Path
) -> None:
    variables = {"nnUNet_extTrainer": str(folder_of_trainers), "PYTHONPATH": torchvision["working"]}
    assert_found_in(environment, environment.site / "nnunet_topo", **variables)
    # A name that begins like ours but is the user's has to come from the user's folder.
    found = environment.find("nnUNetTrainerMine", "nnUNetTrainerTopoMine", **variables)
    assert [module for module, _ in found.values()] == ["mine", "mine"]


def test_broken_folder_of_the_user_does_not_reach_ours(
    environment: Any, torchvision: dict[str, str], folder_of_trainers: Path
) -> None:
    (folder_of_trainers / "a_broken_one.py").write_text("import no_such_module_anywhere\n")
    variables = {"nnUNet_extTrainer": str(folder_of_trainers), "PYTHONPATH": torchvision["working"]}
    assert_found_in(environment, environment.site / "nnunet_topo", **variables)
    with pytest.raises(AssertionError, match="no_such_module_anywhere"):
        environment.find("nnUNetTrainerMine", **variables)


def test_torch_and_torchvision_that_do_not_match(
    environment: Any, torchvision: dict[str, str], folder_of_trainers: Path, tmp_path: Path
) -> None:
    variables = {"nnUNet_extTrainer": str(folder_of_trainers), "PYTHONPATH": torchvision["mismatched"]}
    assert_found_in(environment, environment.site / "nnunet_topo", **variables)
    with pytest.raises(AssertionError, match="torchvision::nms does not exist"):
        environment.find(VARIANT, **variables)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        variables[name] = str(tmp_path)
    run = environment.run("-m", "nnunet_topo.cli", "doctor", "--json", **variables)
    report = json.loads(run.stdout)
    findings = {finding["name"]: finding for finding in report["findings"]}
    assert {findings[name]["status"] for name in OURS} == {"ok"}
    assert findings["other trainers"]["status"] == "warn"
    assert "torchvision::nms does not exist" in findings["other trainers"]["value"]
    assert "pip install" in findings["other trainers"]["mend"]
    assert (run.returncode, report["ok"]) == (0, True)


def test_opt_out(environment: Any, torchvision: dict[str, str]) -> None:
    variables = {"NNUNET_TOPO_DISABLE_AUTOREGISTER": "1", "PYTHONPATH": torchvision["working"]}
    # nnU-Net has then searched all that it has, and found nothing wrong on the way.
    with pytest.raises(AssertionError, match="Could not find requested nnunet trainer nnUNetTrainerTopo"):
        environment.find(OURS[0], **variables)


def test_classes_are_the_same_at_every_lookup_and_in_child_processes(environment: Any, tmp_path: Path) -> None:
    script = tmp_path / "identity.py"
    script.write_text(IDENTITY)
    run = environment.run(script, OURS[1])
    assert run.stdout.strip() == "same", run.stderr


@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_uninstall_leaves_nothing(make_environment: Callable[..., Any], wheel: Path, editable: bool) -> None:
    environment = make_environment()
    before = environment.files()
    environment.pip("install", *(["-e", REPOSITORY] if editable else [wheel]))
    # Byte code that Python wrote in between has to go as well.
    environment.run("-c", "import _nnunet_topo_boot, nnunet_topo.errors")
    added = environment.files() - before
    assert {Path(name).name for name in added} >= {"nnunet_topo.pth", "nnunet_topo.start", "_nnunet_topo_boot.py"}
    environment.pip("uninstall", "nnunet-topo")
    assert environment.files() - before <= {"elsewhere"}
    assert before <= environment.files()
    left = [path for path in environment.folder.rglob("*") if "nnunet_topo" in path.name.lower()]
    assert left == []
    assert environment.run("-c", "pass").stderr == ""


def test_half_removed_package_names_itself_and_leaves_the_other_trainers(
    make_environment: Callable[..., Any], wheel: Path, torchvision: dict[str, str]
) -> None:
    environment = make_environment()
    environment.pip("install", wheel)
    shutil.rmtree(environment.site / "nnunet_topo")
    assert environment.find(STOCK, VARIANT, PYTHONPATH=torchvision["working"])
    with pytest.raises(
        AssertionError, match=r"ImportError: nnUNetTrainerTopo: .*No module named 'nnunet_topo'.*pip in"
    ):
        environment.find(OURS[0])
