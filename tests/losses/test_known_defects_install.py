"""Defects of public topology losses, third part: what fails before a loss is computed, and what takes images only."""

import ast
import importlib
import inspect
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

import nnunet_topo
from nnunet_topo.losses import TERMS, make_term
from nnunet_topo.metrics.cldice import cldice
from nnunet_topo.training import trainers

OURS = [found for found in vars(trainers).values() if inspect.isclass(found) and found.__module__ == trainers.__name__]
SEES_A_CUT = ("cldice", "cbdice", "skeleton_recall", "medial_surface_recall", "connectivity", "scnp", "betti_matching")


def tube(axes, *, cut=False):
    """Labels (1, 1, 20, 9[, 9]) of a tube along the first axis."""
    labels = torch.zeros(1, 1, 20, *[9] * (axes - 1), dtype=torch.int16)
    labels[(0, 0, slice(None), *[slice(3, 6)] * (axes - 1))] = 1
    if cut:
        labels[0, 0, 9:12] = 0
    return labels


def logits_of(mask, confidence=9.0):
    one = torch.where(mask > 0, confidence, -confidence)
    return torch.cat([-one / 2, one / 2], 1)


def imported_from(package):
    """(module, name) of all that this package imports from another one, whenever it does."""
    files = Path(nnunet_topo.__file__).parent.rglob("*.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    sources = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {(node.module, name.name) for node in sources if node.module.split(".")[0] == package for name in node.names}


def test_p14_cldice_of_empty_and_disjoint_masks_is_defined():
    # The clDice repository's metric: NaN for one empty mask, for two, and for masks apart.
    mask = tube(3)[0, 0].numpy() > 0
    left, right, empty = mask.copy(), mask.copy(), mask & False
    left[8:], right[:12] = False, False
    assert cldice(mask, empty) == cldice(empty, mask) == cldice(left, right) == 0
    assert math.isnan(cldice(empty, empty))  # void: means leave it out
    term = make_term("cldice")
    for prediction, labels, expected in ((mask, empty, 1), (empty, mask, 1), (left, right, 1), (empty, empty, 0)):
        prediction, labels = (torch.from_numpy(each)[None, None].short() for each in (prediction, labels))
        logits = logits_of(prediction, 60.0).requires_grad_()
        value = term(logits, labels)
        assert value.item() == pytest.approx(expected, abs=1e-4)
        assert torch.autograd.grad(value, logits)[0].isfinite().all()


@pytest.mark.parametrize("package", ["skimage", "nnunetv2"])
def test_p14_and_p22_all_that_is_imported_exists(package):
    # The clDice repository with skimage 0.26: ImportError, skeletonize_3d is gone. Trainers to be copied into nnU-Net
    # 2.8: ModuleNotFoundError, nnunetv2.training.dataloading.data_loader_2d and data_loader_3d are gone.
    found = imported_from(package)
    assert found
    for module, name in found:
        assert hasattr(importlib.import_module(module), name), (module, name)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("name", SEES_A_CUT)
def test_p17_a_cut_is_seen_in_images_and_in_volumes(name, axes):
    # topolosses in 3-D: ValueError from clDice and warping, RuntimeError from Topograph; all three are for images.
    if name not in TERMS:
        pytest.skip("its engine is not installed")
    labels = tube(axes)
    logits = logits_of(tube(axes, cut=True)).requires_grad_()
    value = make_term(name)(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    assert value > make_term(name)(logits_of(labels), labels) + 0.05
    assert gradient[:, 1, 9:12].min() < 0
    assert gradient[:, 1, 9:12].min() <= 0.99 * gradient[:, 1].min()


def test_p20_every_term_works_beside_a_torchvision_that_cannot_be_imported(tmp_path):
    # topolosses: its import fails when torchvision is not the one that was built for this torch.
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code = (
        "import sys, torch\n"
        "try:\n    import torchvision\n"
        "except RuntimeError as error:\n    print(str(error).split()[-1])\n"
        "from nnunet_topo.losses import make_term\n"
        "for name in sys.argv[1:]:\n"
        "    term = make_term(name)\n"
        "    print(name, term(torch.randn(1, 2, 5, 6, 7), torch.randint(2, (1, 1, 5, 6, 7))).isfinite().item())\n"
    )
    expected = [word for name in TERMS for word in (name, "True")]
    command = [sys.executable, "-c", code, *TERMS]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.split() == ["exist", *expected]


@pytest.mark.parametrize("trainer", OURS)
def test_p22_trainers_have_the_hooks_of_the_installed_nnunet(trainer):
    # Trainers to be copied into nnU-Net 2.8: __init__ still takes unpack_dataset, and they do not start.
    assert issubclass(trainer, nnUNetTrainer)
    assert list(inspect.signature(trainer).parameters) == list(inspect.signature(nnUNetTrainer).parameters)
    for name, theirs in vars(nnUNetTrainer).items():
        if inspect.isfunction(theirs) and not name.startswith("__"):
            ours = inspect.getattr_static(trainer, name)
            expected, taken = (list(inspect.signature(function).parameters) for function in (theirs, ours))
            assert taken[: len(expected)] == expected, name
