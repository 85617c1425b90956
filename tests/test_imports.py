"""The one direction of imports: nothing imports what stands above it, and nnU-Net is imported only by its guests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "nnunet_topo"

# From the bottom up; parts of one level may import each other.
LEVELS = (
    {"errors", "_validation"},
    {"functional"},
    {"losses", "metrics"},
    {"recipe", "_recipe_sections", "_recipe_remarks", "diary"},
    {"schedule", "control"},
    {"data", "training", "evaluation", "inference"},
    {"cli"},
)
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
HOSTS = {"nnunetv2", "batchgeneratorsv2", "dynamic_network_architectures"}
MAY_IMPORT_HOSTS = {"data", "training", "evaluation", "inference", "cli"}


def imports(source: str, module: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that a module imports, at any depth of nesting.

    Args:
        source: its text.
        module: its dotted name in parts, ending in `__init__` for a package.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module[: len(module) - node.level] if node.level else ()
            dotted = ".".join((*base, *filter(None, [node.module])))
            yield from ((node.lineno, f"{dotted}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def violations(package: Path) -> list[str]:
    """Every import against the direction, as `file:line: what`."""
    found = []
    for path in sorted(package.rglob("*.py")):
        file = path.relative_to(package.parent)
        module = file.with_suffix("").parts
        part = module[1]
        if part not in LEVEL and part != "__init__":
            found.append(f"{file}: part '{part}' has no level")
            continue
        for line, name in imports(path.read_text(encoding="utf-8"), module):
            top, _, rest = name.partition(".")
            target = rest.split(".")[0]
            if top == package.name and target in LEVEL and LEVEL[target] > LEVEL.get(part, -1):
                found.append(f"{file}:{line}: {part} imports {name}")
            if top in HOSTS and part not in MAY_IMPORT_HOSTS:
                found.append(f"{file}:{line}: {part} imports {name}")
    return found


def test_the_package_keeps_the_direction() -> None:
    assert violations(PACKAGE) == []


def test_something_was_looked_at() -> None:
    files = list(PACKAGE.rglob("*.py"))
    names = {name for path in files for _, name in imports(path.read_text(), path.relative_to(PACKAGE.parent).parts)}
    assert len(files) > 20
    assert any(name.startswith("nnunet_topo.errors") for name in names)
    assert any(name.startswith("nnunetv2.") for name in names)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("losses/dice.py", "from nnunet_topo.recipe import Recipe"),
        ("losses/dice.py", "import nnunet_topo.training.trainers"),
        ("losses/dice.py", "from nnunet_topo import cli"),
        ("losses/deep/dice.py", "from ...control import state"),
        ("losses/__init__.py", "from ..schedule import phases"),
        ("functional/dice.py", "def late():\n    from nnunet_topo.losses import Term"),
        ("recipe.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .schedule import phases"),
        ("metrics/betti.py", "import importlib\nimportlib.import_module('nnunet_topo.evaluation.folders')"),
        ("control/noise.py", "import nnunetv2"),
        ("losses/dice.py", "from batchgeneratorsv2.transforms import x"),
        ("recipe.py", "def late():\n    import dynamic_network_architectures.building_blocks"),
        ("training/trainers.py", "from nnunet_topo.cli import doctor"),
        ("__init__.py", "from nnunet_topo.errors import TopoError"),
        ("helpers.py", ""),
    ],
)
def test_an_arrow_the_other_way_is_found(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / "nnunet_topo" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert len(violations(tmp_path / "nnunet_topo")) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("control/phases.py", "from nnunet_topo.schedule import phases\nfrom nnunet_topo import __version__"),
        ("training/trainers.py", "from nnunetv2.paths import nnUNet_raw\nfrom .journal import Journal"),
        ("errors.py", "import difflib, torch"),
        ("cli/plan.py", "from nnunet_topo.inference import predict"),
        ("losses/dice.py", "from ..functional.dice import soft_dice\nfrom . import compound"),
    ],
)
def test_an_arrow_in_the_direction_is_let_through(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / "nnunet_topo" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert violations(tmp_path / "nnunet_topo") == []
