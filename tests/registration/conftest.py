"""Scratch environments that share torch and nnU-Net with the running one, but never its install of this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
OWN_FILES = ("nnunet_topo", "_nnunet_topo")

# nnU-Net forgets the modules of nnUNet_extTrainer once it has searched them: those have no file.
FIND = """
import json, sys
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
classes = [find(name) for name in sys.argv[1:]]
files = [getattr(sys.modules.get(found.__module__), "__file__", "") for found in classes]
print(json.dumps({found.__name__: [found.__module__, file] for found, file in zip(classes, files)}))
"""

# Answers for every module and name below it, as far as importing timm needs.
WORKING_TORCHVISION = """
import importlib.abc, importlib.machinery, sys
__version__ = "0.0.0"
class AnyName(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name
class Anything(metaclass=AnyName):
    def __init__(self, *args, **kwargs): pass
    def __init_subclass__(cls, **kwargs): pass
    def __class_getitem__(cls, item): return cls
def fill(module):
    module.__path__ = []
    def __getattr__(name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything
    module.__getattr__ = __getattr__
class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.startswith("torchvision."):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec): return None
    def exec_module(self, module): fill(module)
sys.meta_path.insert(0, Finder())
fill(sys.modules[__name__])
"""
MISMATCHED_TORCHVISION = "raise RuntimeError('operator torchvision::nms does not exist')\n"


@dataclass(frozen=True)
class Environment:
    """A virtual environment: its folder, its interpreter and its own site-packages."""

    folder: Path
    python: Path
    site: Path

    def run(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run its interpreter in an empty folder, with nothing of the caller's Python and nnU-Net variables."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "nnUNet_", "NNUNET_", "VIRTUAL_ENV"))
        }
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        return subprocess.run(
            [str(self.python), *map(str, arguments)],
            env={**kept, "OMP_NUM_THREADS": "1", **variables},
            cwd=elsewhere,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def find(self, *names: str, **variables: str) -> dict[str, tuple[str, Path]]:
        """Stock lookup of trainers, in a fresh interpreter: module and file of each."""
        run = self.run("-c", FIND, *names, **variables)
        assert run.returncode == 0, run.stderr
        found = json.loads(run.stdout.splitlines()[-1])
        return {name: (module, Path(file)) for name, (module, file) in found.items()}

    def pip(self, command: str, *arguments: str | Path) -> None:
        """Run the shared pip here, offline."""
        options = ("--no-deps", "--no-index", "--no-build-isolation") if command == "install" else ("--yes",)
        run = self.run("-m", "pip", command, "--quiet", "--disable-pip-version-check", *options, *arguments)
        assert run.returncode == 0, run.stderr

    def files(self) -> set[str]:
        """Everything in it, without what Python caches."""
        names = (path.relative_to(self.folder) for path in self.folder.rglob("*"))
        return {str(name) for name in names if "__pycache__" not in name.parts}


def link_site(target: Path, without: Iterable[str] = ()) -> None:
    """Link into `target` all that the running interpreter can import, except this package and torchvision.

    Args:
        target: made if missing; what it has already stays.
        without: beginnings of further names to leave out.
    """
    target.mkdir(parents=True, exist_ok=True)
    left_out = (*OWN_FILES, "torchvision", "__pycache__", *without)
    for folder in map(Path, sys.path):
        if folder.name not in ("site-packages", "dist-packages") or not folder.is_dir():
            continue
        for entry in folder.iterdir():
            link = target / entry.name
            if not entry.name.startswith(left_out) and entry.suffix != ".pth" and not link.exists():
                link.symlink_to(entry)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Path]:
    """Offline builder: kind ("wheel" or "sdist") and tree to archive."""

    def make(kind: str, source: Path) -> Path:
        target = tmp_path_factory.mktemp(kind)
        command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(target), str(source)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        (archive,) = target.iterdir()
        return archive

    return make


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """Factory of environments: `shared="same"` links the others' packages beside ours, "other" into another folder."""

    def make(shared: str = "same", without: Iterable[str] = ()) -> Environment:
        folder = tmp_path_factory.mktemp("environment")
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        (site,) = folder.glob("lib/python*/site-packages")
        if shared == "same":
            link_site(site, without)
        else:
            other = tmp_path_factory.mktemp("shared")
            link_site(other, without)
            (site / "shared.pth").write_text(f"{other}\n")
        return Environment(folder, folder / "bin" / "python", site)

    return make


@pytest.fixture(scope="session")
def wheel(build: Callable[[str, Path], Path]) -> Path:
    """The wheel of this tree."""
    return build("wheel", REPOSITORY)


@pytest.fixture(scope="session")
def environment(make_environment: Callable[..., Environment], wheel: Path) -> Environment:
    """An environment in which the wheel is installed. Read-only by agreement."""
    made = make_environment()
    made.pip("install", wheel)
    return made


@pytest.fixture(scope="session")
def torchvision(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """PYTHONPATH with a torchvision that is "working" or "mismatched" with torch."""
    paths = {}
    for kind, source in (("working", WORKING_TORCHVISION), ("mismatched", MISMATCHED_TORCHVISION)):
        package = tmp_path_factory.mktemp(kind) / "torchvision"
        package.mkdir()
        (package / "__init__.py").write_text(source)
        paths[kind] = str(package.parent)
    return paths
