"""The recipe `nnunet` is stock nnU-Net to the last bit."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform, blur_dimension
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_topo.training.trainers import nnUNetTrainerTopo, nnUNetTrainerTopoProgressive

STEPS = 8


@pytest.fixture(autouse=True)
def _blur_chosen_without_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock's blur picks convolution or FFT by timing them: two runs of stock itself may differ in a last bit."""
    monkeypatch.setattr(GaussianBlurTransform, "_benchmark_wrapper", lambda self, *image: blur_dimension(*image))


def _seed() -> None:
    np.random.seed(7)
    torch.manual_seed(7)


def _steps(make_trainer, cls: type, kind: str) -> tuple[list, list, dict]:
    _seed()
    trainer = make_trainer(cls, kind)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    losses, gradients = [], []
    for _ in range(STEPS):
        losses.append(trainer.train_step(next(trainer.dataloader_train))["loss"])
        # The lowest deep-supervision head has weight 0 and so no gradient.
        gradients.append({n: p.grad.clone() for n, p in trainer.network.named_parameters() if p.grad is not None})
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        losses.append(trainer.validation_step(next(trainer.dataloader_val))["loss"])
    return losses, gradients, trainer.network.state_dict()


@pytest.mark.parametrize("kind", ["plain", "ignore", "classes", "regions"])
def test_losses_gradients_and_weights_equal_stock(make_trainer, kind: str) -> None:
    stock_losses, stock_gradients, stock_weights = _steps(make_trainer, nnUNetTrainer, kind)
    our_losses, our_gradients, our_weights = _steps(make_trainer, nnUNetTrainerTopo, kind)

    assert [float(loss) for loss in our_losses] == [float(loss) for loss in stock_losses]
    assert all(a.dtype == b.dtype and a.shape == b.shape for a, b in zip(our_losses, stock_losses, strict=True))
    for ours, theirs in zip(our_gradients, stock_gradients, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert all(torch.equal(our_weights[name], stock_weights[name]) for name in stock_weights)


def test_another_seed_gives_other_losses(make_trainer) -> None:
    """The comparison above would notice a difference."""
    first, _, _ = _steps(make_trainer, nnUNetTrainerTopo, "plain")
    np.random.seed(8)
    trainer = make_trainer(nnUNetTrainerTopo)
    trainer.on_train_start()
    assert float(trainer.train_step(next(trainer.dataloader_train))["loss"]) != float(first[0])


def test_the_control_recipe_holds_the_object_of_stock_build_loss(make_trainer) -> None:
    trainer = make_trainer(nnUNetTrainerTopo)
    trainer.initialize()
    assert type(trainer.loss) is DeepSupervisionWrapper


def test_signature_is_that_of_stock() -> None:
    stock = inspect.signature(nnUNetTrainer.__init__).parameters
    for cls in (nnUNetTrainerTopo, nnUNetTrainerTopoProgressive):
        ours = inspect.signature(cls.__init__).parameters
        assert list(ours) == list(stock)
        assert ours["device"].default == stock["device"].default


def test_checkpoint_has_the_keys_of_stock_and_one_more(make_trainer, tmp_path) -> None:
    checkpoints = {}
    for cls in (nnUNetTrainer, nnUNetTrainerTopo):
        trainer = make_trainer(cls)
        trainer.initialize()
        trainer.save_checkpoint(str(tmp_path / f"{cls.__name__}.pth"))
        checkpoints[cls] = torch.load(tmp_path / f"{cls.__name__}.pth", weights_only=False)
    assert set(checkpoints[nnUNetTrainerTopo]) == set(checkpoints[nnUNetTrainer]) | {"nnunet_topo"}
    torch.load(tmp_path / "nnUNetTrainerTopo.pth", weights_only=True)


def test_stock_loads_our_checkpoint(make_trainer, tmp_path) -> None:
    ours = make_trainer(nnUNetTrainerTopo)
    ours.initialize()
    ours.save_checkpoint(str(tmp_path / "ours.pth"))
    stock = make_trainer(nnUNetTrainer)
    stock.load_checkpoint(str(tmp_path / "ours.pth"))
    weights = ours.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in stock.network.state_dict().items())
