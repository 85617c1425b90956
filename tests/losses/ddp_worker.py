"""One rank of a two-process run: every term on its share of the batch; see test_ddp.py."""

from __future__ import annotations

import sys
from datetime import timedelta

import torch
from torch import distributed


def main(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=150),
    )
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    from nnunet_topo.losses import make_term

    cases = torch.load(f"{folder}/cases.pt", weights_only=True)
    results = {}
    for key, case in cases.items():
        share = slice(*case["shares"][rank])
        logits = case["logits"][share].clone().requires_grad_()
        value = make_term(case["name"], **case["settings"])(logits, case["labels"][share])
        (gradient,) = torch.autograd.grad(value, logits)
        results[key] = (value.detach(), gradient)
    logits = cases["stock"]["logits"][slice(*cases["stock"]["shares"][rank])].clone().requires_grad_()
    labels = cases["stock"]["labels"][slice(*cases["stock"]["shares"][rank])]
    stock = MemoryEfficientSoftDiceLoss(lambda x: x.softmax(1), batch_dice=True, do_bg=False, smooth=1e-5, ddp=True)
    value = stock(logits, torch.where(labels < 3, labels, 0), loss_mask=labels < 3)
    results["nnU-Net itself"] = (value.detach() + 1, torch.autograd.grad(value, logits)[0])
    torch.save(results, f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
