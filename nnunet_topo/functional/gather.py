"""Sums over the batch and over the processes of a distributed training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total, op=distributed.ReduceOp.SUM)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total, op=distributed.ReduceOp.SUM)
        return total


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum of `tensor` over all processes, differentiable; the tensor itself outside a distributed run.

    Gradient convention (that of nnU-Net's AllGatherGrad): every rank computes the same loss from the same sums, and
    the backward pass adds up the ranks' gradients, which gives W times the gradient on W ranks. DistributedDataParallel
    then averages parameter gradients over the ranks, and the outcome is the gradient of one process that holds the
    whole batch. With a framework that sums gradients instead, the result would be W times too large.

    Every rank must reach this call, whatever its data: callers must not make it depend on the contents of a batch.

    Args:
        tensor: any shape, equal on all ranks.

    Returns:
        Same shape and dtype.
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return tensor
    return _SumOverRanks.apply(tensor)


def pool_samples(sums: Tensor, batch_dice: bool) -> Tensor:
    """Per-sample sums for a ratio term, pooled over batch and ranks when nnU-Net's `batch_dice` is on.

    Args:
        sums: (N, B, K) sums over voxels: N quantities, B samples, K structures. Stacking the quantities makes it one
            collective instead of N.
        batch_dice: pool (one ratio per structure) or keep the samples apart (one ratio per sample and structure).

    Returns:
        (N, 1, K) or (N, B, K).
    """
    return sum_over_ranks(sums.sum(1, keepdim=True)) if batch_dice else sums


def pool_voxels(total: Tensor, count: Tensor, batch_dice: bool) -> tuple[Tensor, Tensor]:
    """Numerator and denominator of a mean over voxels: those of this process, or of all ranks with `batch_dice`.

    Args:
        total: () or (K,) sum over the valid voxels of the local batch.
        count: same shape, the sum of their weights.
        batch_dice: whether ranks are pooled.

    Returns:
        `total` and `count`, each of the same shape as before.
    """
    if not batch_dice:
        return total, count
    pooled = sum_over_ranks(torch.stack([total, count.to(total.dtype)]))
    return pooled[0], pooled[1]
