"""What this machine's installation can and cannot do: the findings that `nnunet-topo doctor` prints.

Whatever imports nnU-Net, torch or a user's own code is asked of a fresh interpreter, for two reasons: a broken library
may take its process down, and only a fresh start shows what `nnUNetv2_train` will see.
"""

from __future__ import annotations

import ast
import base64
import importlib.metadata
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import nnunet_topo

Status = Literal["ok", "warn", "fail"]

PREFIX = "nnUNetTrainerTopo"
OPT_OUT = "NNUNET_TOPO_DISABLE_AUTOREGISTER"
REINSTALL = "pip install --force-reinstall --no-deps nnunet-topo"
DISTRIBUTIONS = (
    "nnunetv2",
    "torch",
    "batchgenerators",
    "batchgeneratorsv2",
    "acvl-utils",
    "connected-components-3d",
    "numpy",
    "scipy",
    "scikit-image",
    "SimpleITK",
    "tifffile",
    "imagecodecs",
    "PyYAML",
    "matplotlib",
)
PROBE_LIMIT_S = 300.0
MARK = "nnunet-topo-probe "

# A 4 x 4 image, 8 bit, row i filled with i, LZW-compressed.
LZW_TIF = base64.b64decode(
    "SUkqAAgAAAANAAABBAABAAAABAAAAAEBBAABAAAABAAAAAIBAwABAAAACAAAAAMBAwABAAAABQAAAAYBAwABAAAAAQAAABEBBAABAAAA0AAAABUB"
    "AwABAAAAAQAAABYBBAABAAAABAAAABcBBAABAAAAEAAAABoBBQABAAAAqgAAABsBBQABAAAAsgAAACgBAwABAAAAAQAAADEBAgAMAAAAugAAAAAA"
    "AAABAAAAAQAAAAEAAAABAAAAdGlmZmZpbGUucHkAAAAAAAAAAAAAAIAAIEAADBQCAoQAgHCwHAQ="
)

# The current folder is on the path of `python -c`, but not on that of nnU-Net's commands.
_PROBE_START = f"""
import json, sys
sys.path[:] = [folder for folder in sys.path if folder]
def tell(**facts):
    sys.stdout.write("\\n{MARK}" + json.dumps(facts) + "\\n")
    sys.stdout.flush()
"""
_ASK_TRAINERS = """
tell(boot=getattr(sys.modules.get("_nnunet_topo_boot"), "__file__", None))
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
for name in sys.argv[1:]:
    found = find(name)
    tell(**{name: getattr(sys.modules.get(found.__module__), "__file__", found.__module__)})
    if found is not find(name):
        raise RuntimeError(f"two lookups of {name} gave two different classes")
"""
_ASK_TORCH = """
from importlib.util import find_spec
import torch
cuda = torch.cuda.is_available()
tell(
    torch=torch.__version__,
    gpus=[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
    mps=torch.backends.mps.is_available(),
    triton=find_spec("triton") is not None,
)
import torchvision
tell(torchvision=torchvision.__version__)
"""
_ASK_FOLDER = """
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
recursive_find_python_class(sys.argv[1], "nnunet-topo-doctor", None, sys.argv[1], False, True)
"""


@dataclass(frozen=True)
class Finding:
    """One row of the doctor's table.

    Attributes:
        name: what was looked at.
        status: "fail" only where a command will really fail, "warn" where something is lost or at risk.
        value: what was found.
        mend: what to do about it, empty if nothing.
    """

    name: str
    status: Status
    value: str
    mend: str = ""


@dataclass(frozen=True)
class Answer:
    """What a fresh interpreter said.

    Attributes:
        facts: all that it told before it ended.
        error: the last line of its error output, empty if it ended well.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


def ask(code: str, *arguments: str) -> Answer:
    """Run code in a fresh interpreter that starts as nnU-Net's commands do.

    Args:
        code: calls `tell(name=value, ...)` for each fact.
        *arguments: its `sys.argv[1:]`.
    """
    command = [sys.executable, "-c", _PROBE_START + code, *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return Answer(error=f"no answer within {PROBE_LIMIT_S:.0f} s")
    facts: dict[str, Any] = {}
    for line in run.stdout.splitlines():
        if line.startswith(MARK):
            facts.update(json.loads(line.removeprefix(MARK)))
    if run.returncode == 0:
        return Answer(facts)
    lines = run.stderr.strip().splitlines()
    return Answer(facts, lines[-1] if lines else f"ended with status {run.returncode}")


def diagnose() -> list[Finding]:
    """All findings, those about the installation first. Takes as long as importing nnU-Net in a fresh interpreter."""
    trainers, folders = trainer_names(), external_folders()
    with ThreadPoolExecutor() as pool:
        asked_trainers = pool.submit(ask, _ASK_TRAINERS, *trainers)
        asked_torch = pool.submit(ask, _ASK_TORCH)
        asked_folders = {folder: pool.submit(ask, _ASK_FOLDER, folder) for folder in folders if Path(folder).is_dir()}
        answer_torch = asked_torch.result()
        return [
            *version_findings(),
            *installation_findings(asked_trainers.result()),
            *trainer_findings(trainers, asked_trainers.result()),
            *external_findings(folders, {folder: asked.result() for folder, asked in asked_folders.items()}),
            torchvision_finding(answer_torch),
            convolution_finding(answer_torch),
            lzw_finding(),
            *path_findings(),
            *device_findings(answer_torch),
        ]


def trainer_names() -> list[str]:
    """Names of this package's trainers, read without importing them."""
    source = Path(nnunet_topo.__file__).parent / "training" / "trainers.py"
    if not source.is_file():
        return [PREFIX]
    body = ast.parse(source.read_text(encoding="utf-8")).body
    return [node.name for node in body if isinstance(node, ast.ClassDef) and node.name.startswith(PREFIX)]


def version_findings() -> Iterator[Finding]:
    """One finding for Python, this package and each package that it needs."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 10) <= sys.version_info < (3, 14):
        yield Finding("python", "ok", python)
    else:
        yield Finding("python", "warn", python, "nnunet-topo is tested on Python 3.10 to 3.13: use one of these.")
    yield Finding("nnunet-topo", "ok", f"{nnunet_topo.__version__} in {Path(nnunet_topo.__file__).parent}")
    for name in DISTRIBUTIONS:
        version = _version(name)
        if version is None:
            yield Finding(name, "fail", "not installed", f"pip install {name}")
        elif name == "nnunetv2" and not (2, 8) <= _numbers(version) < (3,):
            yield Finding(name, "fail", version, "pip install 'nnunetv2>=2.8,<3'")
        else:
            yield Finding(name, "ok", version)
    # Not needed by this package, but by what nnU-Net imports on its way to other trainers: see torchvision_finding.
    yield Finding("torchvision", "ok", _version("torchvision") or "not installed")


def _opted_out() -> bool:
    """Whether the start-up file was told to do nothing; it reads the variable the same way."""
    return os.environ.get(OPT_OUT, "").strip().lower() not in ("", "0", "false")


def installation_findings(trainers: Answer) -> Iterator[Finding]:
    """Start-up file, opt-out variable, and copies of this package that hide each other.

    Args:
        trainers: the answer about the trainers, which also tells whether the start-up file ran.
    """
    boot = trainers.facts.get("boot")
    if boot:
        yield Finding("start-up file", "ok", str(boot))
    else:
        # The rows of the trainers say whether this matters: another way may have registered them.
        yield Finding(
            "start-up file",
            "warn",
            "did not run",
            f"{REINSTALL}. Start-up files run in site folders only: not with python -S, PYTHONPATH, pip --target or "
            "zip applications, for which docs/registration.md shows another way.",
        )
    if _opted_out():
        yield Finding(OPT_OUT, "warn", repr(os.environ[OPT_OUT]), f"unset {OPT_OUT}, to have the trainers found")
    copies = _copies()
    if len(copies) > 1:
        yield Finding("copies", "warn", ", ".join(copies), "The first one wins: uninstall the others.")


def trainer_findings(names: list[str], answer: Answer) -> Iterator[Finding]:
    """Whether nnU-Net's own lookup finds each of our trainers, and in which file."""
    own = Path(nnunet_topo.__file__).parent.resolve()
    for name in names:
        file = answer.facts.get(name)
        if file is None:
            yield Finding(name, "fail", answer.error or "not found", _trainer_mend(answer))
        elif own not in Path(file).resolve().parents:
            yield Finding(name, "warn", file, f"Comes from another copy than {own}: keep only one.")
        else:
            yield Finding(name, "ok", file)


def external_findings(folders: list[str], answers: Mapping[str, Answer]) -> Iterator[Finding]:
    """Whether nnU-Net can search each folder of the user's `nnUNet_extTrainer`.

    Args:
        folders: as the variable names them.
        answers: for each folder that exists.
    """
    for folder in folders:
        if folder not in answers:
            yield Finding("nnUNet_extTrainer", "warn", f"{folder}: no such folder", "nnU-Net skips it.")
        elif answers[folder].error:
            yield Finding(
                "nnUNet_extTrainer",
                "warn",
                f"{folder}: {answers[folder].error}",
                "nnU-Net stops here when it looks for a trainer of this or a later folder. nnunet-topo's own are found "
                "regardless. Mend the module, or take it out of the folder.",
            )
        else:
            yield Finding("nnUNet_extTrainer", "ok", folder)


def external_folders() -> list[str]:
    """Folders of the variable `nnUNet_extTrainer`, in nnU-Net's order."""
    return [folder for folder in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if folder.strip()]


def torchvision_finding(answer: Answer) -> Finding:
    """Whether torchvision works with this torch, without which nnU-Net finds no trainer but its default and ours."""
    name = "other trainers"
    if "torch" not in answer.facts:
        return Finding(name, "fail", f"torch cannot be imported: {answer.error}", "Install a torch for this machine.")
    if "torchvision" in answer.facts:
        return Finding(name, "ok", f"torchvision {answer.facts['torchvision']} works with this torch")
    wanted = _matching_torchvision(answer.facts["torch"])
    return Finding(
        name,
        "warn",
        f"torchvision does not work with torch {answer.facts['torch']}: {answer.error}",
        "nnunet-topo's trainers work. nnU-Net's variants and those of nnUNet_extTrainer do not, since nnU-Net imports "
        f"torchvision on its way to them: pip install --force-reinstall --no-deps 'torchvision=={wanted}' --index-url "
        "<the index that torch came from>",
    )


def convolution_finding(answer: Answer) -> Finding:
    """Whether torch is a 2.9, whose 3-D convolutions are slow in mixed precision (pytorch issue 166122)."""
    name, version = "3-D convolutions", str(answer.facts.get("torch", _version("torch")))
    if not version.startswith("2.9."):
        return Finding(name, "ok", f"torch {version} is not affected")
    return Finding(
        name,
        "warn",
        f"torch {version}: on CUDA in mixed precision about 4 times slower than 2.8 (pytorch issue 166122)",
        "nnU-Net excludes torch 2.9 for that: pip install 'torch!=2.9.*', together with its torchvision",
    )


def lzw_finding() -> Finding:
    """Whether an LZW-compressed tif can be read, which tifffile leaves to imagecodecs."""
    name = "LZW tif"
    try:
        import tifffile

        image = tifffile.imread(io.BytesIO(LZW_TIF))
    except (ImportError, ValueError, RuntimeError) as error:
        return Finding(name, "fail", f"cannot be read: {error}", "pip install --upgrade imagecodecs tifffile")
    if image.tolist() != [[row] * 4 for row in range(4)]:
        return Finding(name, "fail", "is read wrongly", "pip install --force-reinstall imagecodecs tifffile")
    return Finding(name, "ok", "can be read")


def path_findings() -> Iterator[Finding]:
    """The three folders that nnU-Net reads from the environment."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        value = os.environ.get(name, "").strip()
        folder = Path(value)
        if not value:
            yield Finding(name, "fail", "not set", f"export {name}=<folder>")
        elif not folder.exists():
            # nnU-Net makes the other two when it writes there.
            status: Status = "fail" if name == "nnUNet_raw" else "warn"
            yield Finding(name, status, f"{value}: no such folder", f'mkdir -p "${name}"')
        elif not folder.is_dir():
            yield Finding(name, "fail", f"{value}: not a folder", f"export {name}=<folder>")
        elif name != "nnUNet_raw" and not os.access(folder, os.W_OK):
            yield Finding(name, "fail", f"{value}: not writable", f'chmod u+w "${name}", or export another folder')
        else:
            yield Finding(name, "ok", value)


def device_findings(answer: Answer) -> Iterator[Finding]:
    """GPU and torch.compile."""
    gpus = answer.facts.get("gpus", [])
    if gpus:
        yield Finding("GPU", "ok", ", ".join(gpus))
    elif answer.facts.get("mps"):
        yield Finding("GPU", "warn", "Apple mps", "Give nnU-Net's commands -device mps.")
    else:
        yield Finding(
            "GPU", "warn", "none that torch can use", "Give nnU-Net's commands -device cpu, or install a CUDA torch."
        )
    asked = os.environ.get("nnUNet_compile")
    wanted = asked is None or asked.lower() in ("true", "1", "t")
    setting = "nnUNet_compile not set" if asked is None else f"nnUNet_compile={asked}"
    if not (gpus and wanted) or os.name == "nt":
        yield Finding("torch.compile", "ok", f"off ({setting}{'' if gpus else ', no CUDA GPU'})")
    elif answer.facts.get("triton"):
        yield Finding("torch.compile", "ok", f"on ({setting})")
    else:
        yield Finding("torch.compile", "fail", f"on ({setting}), but triton is missing", "export nnUNet_compile=f")


def _trainer_mend(answer: Answer) -> str:
    if _opted_out():
        return f"unset {OPT_OUT}"
    if not answer.facts.get("boot"):
        return f"{REINSTALL} (the start-up file did not run, see above)"
    return f"Mend what the message names, or {REINSTALL}"


def _matching_torchvision(torch_version: str) -> str:
    """The version released with a torch 2.x: 0.(x + 15), same patch number and same build."""
    _, minor, patch = (*_numbers(torch_version), 0, 0)[:3]
    build = torch_version.partition("+")[2]
    return f"0.{minor + 15}.{patch}" + (f"+{build}" if build else "")


def _copies() -> list[str]:
    """Every copy of the package that `sys.path` leads to, the one in use first."""
    folders = [Path(nnunet_topo.__file__).parent]
    folders += [Path(entry or ".") / "nnunet_topo" for entry in sys.path]
    return list(dict.fromkeys(str(folder.resolve()) for folder in folders if (folder / "__init__.py").is_file()))


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])
