"""What the built archives contain."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_holds_the_package_the_start_up_files_and_nothing_else_at_the_top(wheel: Path) -> None:
    top = {name.split("/")[0] for name in names(wheel)}
    assert top == {
        "nnunet_topo",
        "nnunet_topo.pth",
        "nnunet_topo.start",
        "_nnunet_topo_boot.py",
        *(folder for folder in top if folder.endswith(".dist-info")),
    }


def test_wheel_holds_every_module_recipe_and_converter(wheel: Path) -> None:
    sources = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "nnunet_topo").rglob("*.py")]
    carried = [
        Path("nnunet_topo") / path.relative_to(REPOSITORY)
        for pattern in ("plans/*.yaml", "dataset_conversion/*.py")
        for path in REPOSITORY.glob(pattern)
    ]
    assert len(sources) > 10
    assert len(carried) > 1
    wanted = {path.as_posix() for path in [*sources, *carried, Path("nnunet_topo/py.typed")]}
    assert wanted <= names(wheel)


def test_start_up_file_is_one_import_line_and_start_file_names_the_same_call(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("nnunet_topo.pth") == b"import _nnunet_topo_boot; _nnunet_topo_boot.main()\n"
        assert archive.read("nnunet_topo.start") == b"_nnunet_topo_boot:main\n"


def test_wheel_made_from_the_sdist_holds_the_same_files(
    wheel: Path, build: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    sdist = build("sdist", REPOSITORY)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path)
    (tree,) = tmp_path.iterdir()
    assert names(build("wheel", tree)) == names(wheel)
