"""The start-up module alone, against a stand-in for nnU-Net: what it does to the import system and what it leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REGISTRATION = Path(__file__).resolve().parents[2] / "registration"
HOST = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
START = f"import sys, importlib; import _nnunet_topo_boot as boot; HOST = {HOST!r}\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A stand-in for nnU-Net and one for this package."""
    files = {
        "nnunetv2/training/nnUNetTrainer/nnUNetTrainer.py": "class nnUNetTrainer: pass\n"
        "class nnUNetTrainerOther: pass\n",
        "nnunet_topo/training/trainers.py": f"from {HOST} import nnUNetTrainer\n"
        "class nnUNetTrainerTopo(nnUNetTrainer): pass\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        for folder in path.parents:
            if folder == tmp_path:
                break
            (folder / "__init__.py").touch()
    return tmp_path


def run(tree: Path, code: str, **variables: str) -> str:
    """Run code without site folders, so that no installed start-up file takes part; gives its output."""
    run = subprocess.run(
        [sys.executable, "-S", "-B", "-c", START + code],
        env={"PYTHONPATH": f"{REGISTRATION}:{tree}", **variables},
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return run.stdout.strip()


LOOK_UP = "host = importlib.import_module(HOST); trainer = host.nnUNetTrainerTopo\n"


def test_trainer_is_found_and_is_imported_only_when_asked_for(tree: Path) -> None:
    code = (
        "boot.main(); host = importlib.import_module(HOST); print('nnunet_topo' in sys.modules)\n"
        "print(host.nnUNetTrainerTopo is host.nnUNetTrainerTopo, host.nnUNetTrainerTopo.__module__)"
    )
    assert run(tree, code).split("\n") == ["False", "True nnunet_topo.training.trainers"]


def test_without_main_nothing_is_found(tree: Path) -> None:
    assert run(tree, "print(hasattr(importlib.import_module(HOST), 'nnUNetTrainerTopo'))") == "False"


def test_circular_import_through_our_module_first(tree: Path) -> None:
    code = "boot.main(); from nnunet_topo.training.trainers import nnUNetTrainerTopo as ours\n" + LOOK_UP
    assert run(tree, code + "print(trainer is ours)") == "True"


def test_other_names_raise_what_python_raises(tree: Path) -> None:
    code = (
        "boot.main(); host = importlib.import_module(HOST); print(hasattr(host, 'nnUNetTrainerTopoMine'))\n"
        "try: host.nothing\nexcept AttributeError as error: print(error)"
    )
    assert run(tree, code).split("\n") == ["False", f"module '{HOST}' has no attribute 'nothing'"]


@pytest.mark.parametrize(("value", "found"), [("1", False), ("true", False), ("0", True), ("", True)])
def test_opt_out(tree: Path, value: str, found: bool) -> None:
    code = "boot.main(); print(hasattr(importlib.import_module(HOST), 'nnUNetTrainerTopo'), len(sys.meta_path))"
    finders = "4" if found else "3"
    assert run(tree, code, NNUNET_TOPO_DISABLE_AUTOREGISTER=value) == f"{found} {finders}"


def test_main_twice_adds_one_finder_and_keeps_the_others_in_order(tree: Path) -> None:
    code = "before = list(sys.meta_path); boot.main(); boot.main(); print(sys.meta_path[1:] == before)\n" + LOOK_UP
    code += "first = host.__getattr__; boot.main(); print(host.__getattr__ is first, sys.meta_path[1:] == before)"
    assert run(tree, code).split("\n") == ["True", "True True"]


def test_host_imported_before(tree: Path) -> None:
    code = "importlib.import_module(HOST); boot.main()\n" + LOOK_UP + "print(trainer.__name__)"
    assert run(tree, code) == "nnUNetTrainerTopo"


def test_loader_and_spec_stay_python_s_own(tree: Path) -> None:
    code = (
        "import importlib.machinery, inspect; boot.main()\n" + LOOK_UP + "loader = host.__spec__.loader\n"
        "print(type(loader) is importlib.machinery.SourceFileLoader, host.__loader__ is loader,\n"
        "      'exec_module' in vars(loader), inspect.getsource(host.nnUNetTrainerOther).strip())"
    )
    assert run(tree, code) == "True True False class nnUNetTrainerOther: pass"


def test_reload_and_reimport_keep_it(tree: Path) -> None:
    code = (
        "boot.main()\n" + LOOK_UP + "importlib.reload(host); print(host.nnUNetTrainerTopo is trainer)\n"
        "del sys.modules[HOST]; again = importlib.import_module(HOST)\n"
        "print(again is not host, again.nnUNetTrainerTopo is trainer)"
    )
    assert run(tree, code).split("\n") == ["True", "True True"]


def test_import_that_failed_once(tree: Path) -> None:
    host = tree / "nnunetv2/training/nnUNetTrainer/nnUNetTrainer.py"
    host.write_text("import sys\nif not hasattr(sys, 'ready'): raise ImportError('not yet')\n" + host.read_text())
    code = (
        "boot.main()\ntry: importlib.import_module(HOST)\nexcept ImportError as error: print(error)\n"
        "sys.ready = True\n" + LOOK_UP + "print(trainer.__name__)"
    )
    assert run(tree, code).split("\n") == ["not yet", "nnUNetTrainerTopo"]


def test_looking_for_the_spec_spends_nothing(tree: Path) -> None:
    code = "import importlib.util; boot.main(); importlib.util.find_spec(HOST)\n" + LOOK_UP + "print(trainer.__name__)"
    assert run(tree, code) == "nnUNetTrainerTopo"


def test_another_finder_that_delegates_like_ours(tree: Path) -> None:
    code = (
        "class Other:\n"
        "    def find_spec(self, *names):\n"
        "        found = [finder.find_spec(*names) for finder in sys.meta_path if finder is not self]\n"
        "        return next((spec for spec in found if spec), None)\n"
        "boot.main(); sys.meta_path.insert(0, Other())\n" + LOOK_UP + "print(trainer.__name__)"
    )
    assert run(tree, code) == "nnUNetTrainerTopo"


def test_own_getattr_of_the_host_still_answers(tree: Path) -> None:
    host = tree / "nnunetv2/training/nnUNetTrainer/nnUNetTrainer.py"
    host.write_text(host.read_text() + "def __getattr__(name):\n    return 'host: ' + name\n")
    code = "boot.main()\n" + LOOK_UP + "print(trainer.__name__, host.nothing, host.nnUNetTrainerTopoMine)"
    assert run(tree, code) == "nnUNetTrainerTopo host: nothing host: nnUNetTrainerTopoMine"


@pytest.mark.parametrize("cause", ["raise ImportError('no scipy')", "import sys; sys.nothing", "import not_there"])
def test_damage_in_our_package_is_told_and_not_taken_for_an_unknown_trainer(tree: Path, cause: str) -> None:
    (tree / "nnunet_topo/training/trainers.py").write_text(cause + "\n")
    code = (
        "boot.main(); host = importlib.import_module(HOST); print(hasattr(host, 'nnUNetTrainerTheirs'))\n"
        "try: hasattr(host, 'nnUNetTrainerTopo')\nexcept ImportError as error: print(error)"
    )
    other, message = run(tree, code).split("\n")
    assert other == "False"
    assert message.startswith("nnUNetTrainerTopo: ")
    assert "nnunet-topo doctor" in message
    assert any(part in message for part in ("no scipy", "nothing", "not_there"))


def test_loader_without_room_for_the_hook_leaves_nnunet_working(tree: Path) -> None:
    code = (
        "import importlib.machinery, importlib.util\n"
        "class Sealed:\n"
        "    __slots__ = ()\n"
        "    def create_module(self, spec): return None\n"
        "    def exec_module(self, module): module.nnUNetTrainer = int\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        return importlib.machinery.ModuleSpec(name, Sealed()) if name == HOST else None\n"
        "sys.meta_path.insert(0, Finder()); boot.main(); print(importlib.import_module(HOST).nnUNetTrainer)"
    )
    assert run(tree, code) == "<class 'int'>"
