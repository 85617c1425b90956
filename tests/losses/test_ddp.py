"""Two gloo processes with unequal numbers of valid voxels against one process that holds the whole batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnunet_topo.losses import TERMS, make_term

SETTINGS = {
    "entropy": {"floor": 2.0},
    "boundary": {"inner": 1.0, "outer": 2.5},
    "focal": {"alpha": 0.4, "class_weights": [1.0, 2.0, 3.0]},
}
WORKER = Path(__file__).with_name("ddp_worker.py")
START = "import runpy, sys; sys.path.insert(0, {root!r}); runpy.run_path({worker!r}, run_name='__main__')"


def cases_of(build_case):
    """Name of the case -> term, settings, tensors and the samples of each rank."""
    cases = {}
    terms = [(name, SETTINGS.get(name, {})) for name in TERMS]
    terms += [("variance", {"form": "legacy"}), ("ce", {"class_weights": [1.0, 2.0, 3.0]})]
    for name, parameters in terms:
        for kind in ("three", "regions"):
            logits, labels, common = build_case(kind, batch=3)
            # Rank 0 holds two samples, rank 1 one that is mostly ignored, and in one case wholly.
            for lost in (0.7, 1.0):
                few = labels.clone()
                extent = int(lost * labels.shape[-1] + 0.5)
                few[2, -1:, ..., :extent] = True if kind == "regions" else common["ignore_label"]
                settings = {**common, **parameters, "batch_dice": True}
                cases[f"{name} {parameters} {kind} {lost}"] = {
                    "name": name,
                    "settings": settings,
                    "logits": logits,
                    "labels": few,
                    "shares": [(0, 2), (2, 3)],
                }
    return cases


@pytest.fixture(scope="module")
def runs(tmp_path_factory, build_case):
    """Cases and the results of both ranks; one start of two processes serves all terms."""
    folder = tmp_path_factory.mktemp("ddp")
    cases = cases_of(build_case)
    # Stock gathers per sample, so it needs as many on each rank.
    stock = {**cases["dice {} three 0.7"], "shares": [(0, 1), (2, 3)]}
    torch.save({**cases, "stock": stock}, folder / "cases.pt")
    root = Path(__file__).parents[2]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", START.format(root=str(root), worker=str(WORKER)), str(rank), "2", str(folder)]
        )
        for rank in (0, 1)
    ]
    assert [process.wait(timeout=240) for process in ranks] == [0, 0]
    return cases, [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_values_and_gradients_equal_those_of_one_process(runs):
    cases, ranks = runs
    for key, case in cases.items():
        logits = case["logits"].clone().requires_grad_()
        value = make_term(case["name"], **case["settings"])(logits, case["labels"])
        (gradient,) = torch.autograd.grad(value, logits)
        shares = [logits[slice(*share)] for share in case["shares"]]
        assert [len(share) for share in shares] == [2, 1]
        for rank in ranks:
            torch.testing.assert_close(rank[key][0], value, rtol=0, atol=1e-6, msg=key)
        # DistributedDataParallel averages the ranks' gradients; a sample lives on one rank only.
        averaged = torch.cat([rank[key][1] for rank in ranks]) / len(ranks)
        torch.testing.assert_close(averaged, gradient, rtol=0, atol=1e-6, msg=key)
        assert gradient.abs().max() > 1e-5, key


def test_gradient_convention_is_that_of_nnunet(runs):
    """Rank by rank, before any averaging, the gradient of Dice is the one that stock's AllGatherGrad gives."""
    for rank in runs[1]:
        torch.testing.assert_close(rank["stock"], rank["nnU-Net itself"], rtol=1e-5, atol=1e-7)


def test_ranks_alone_would_give_another_value(runs):
    """Else the test above would pass without any collective."""
    cases, _ = runs
    for key, case in cases.items():
        if key.endswith("0.7"):
            module = make_term(case["name"], **case["settings"])
            alone = [module(case["logits"][a:b], case["labels"][a:b]) for a, b in case["shares"]]
            whole = module(case["logits"], case["labels"])
            assert abs(sum(alone) / 2 - whole) > 1e-5, key
