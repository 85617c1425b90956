"""One (logits, labels) pair and what the terms derive from it, each computed once and only when asked for."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from nnunet_topo.errors import DataError, ShapeError
from nnunet_topo.functional.cross_entropy import sigmoid_cross_entropy, softmax_cross_entropy
from nnunet_topo.functional.masks import masked_logits, select_valid, structure_onehot, valid_mask
from nnunet_topo.functional.worst_neighbour import worst_neighbour


class View:
    """What several terms share: one softmax, one one-hot, one cross-entropy map.

    Everything is float32 (float64 for float64 logits) and 0 in ignored voxels. With two or more channels and label
    maps the classes compete (softmax) and channels 1..C-1 are the structures. With one channel, or with regions, every
    channel is a structure and a binary problem of its own (sigmoid).

    Args:
        logits: (B, C, X, Y[, Z]) float, unnormalised.
        labels: (B, 1, X, Y[, Z]) of any dtype, values 0..max(C-1, 1) or `ignore_label`; with `regions`
            (B, C, X, Y[, Z]) one-hot, and one channel more, the ignored voxels, when there is an ignore label.
        ignore_label: value of unlabelled voxels, or None.
        regions: whether `labels` are one-hot regions.
        scnp: voxels; > 0 replaces the logits by those of the worst neighbour within this distance.

    Raises:
        ShapeError: dimensions, channels or sizes do not fit together.
        DataError: a label outside the range, or between two (looked for on the CPU only: a GPU would have to stop and
            wait).
    """

    def __init__(
        self, logits: Tensor, labels: Tensor, *, ignore_label: int | None, regions: bool, scnp: int = 0
    ) -> None:
        _check_shapes(logits, labels, ignore_label, regions)
        self.raw_logits = logits
        # torch can hold these, but compares and sorts nothing in them.
        self.labels = labels.long() if labels.dtype in (torch.uint16, torch.uint32, torch.uint64) else labels
        self.ignore_label = ignore_label
        self.regions = regions
        self.scnp = scnp
        self.softmax = not regions and logits.shape[1] > 1
        self.structures = logits.shape[1] - 1 if self.softmax else logits.shape[1]
        if not regions and labels.device.type == "cpu":
            self._check_label_values()

    @cached_property
    def valid(self) -> Tensor | None:
        """(B, 1, X, Y[, Z]) bool, or None without an ignore label."""
        return valid_mask(self.labels, ignore_label=self.ignore_label, regions=self.regions)

    @cached_property
    def count(self) -> Tensor:
        """(B,) number of valid voxels a sample."""
        if self.valid is None:
            voxels = self.raw_logits[0, 0].numel()
            return torch.full((self.logits.shape[0],), voxels, dtype=self.logits.dtype, device=self.logits.device)
        return self.valid.sum(tuple(range(1, self.valid.ndim))).to(self.logits.dtype)

    @cached_property
    def logits(self) -> Tensor:
        """(B, C, X, Y[, Z]), 0 in ignored voxels; of the worst neighbours with `scnp`."""
        logits = masked_logits(self.raw_logits, self.valid)
        if not self.scnp:
            return logits
        member = self.onehot
        if self.index is not None:
            # Each class has its own mask, the background too: it is whatever no structure is.
            member = torch.cat([~member.any(1, keepdim=True), member], 1)
        return worst_neighbour(logits, member, self.valid, radius=self.scnp)

    @cached_property
    def onehot(self) -> Tensor:
        """(B, K, X, Y[, Z]) bool membership of the structures, False in ignored voxels."""
        return structure_onehot(self.labels, self.structures, valid=self.valid, regions=self.regions)

    @cached_property
    def index(self) -> Tensor | None:
        """(B, 1, X, Y[, Z]) int64 true class, 0 in ignored voxels; None where classes do not compete."""
        if not self.softmax:
            return None
        index = self.labels.long()
        return index if self.valid is None else torch.where(self.valid, index, 0)

    @cached_property
    def log_probabilities(self) -> Tensor:
        """(B, C, X, Y[, Z]) log-softmax of the logits."""
        return self.logits.log_softmax(1)

    @cached_property
    def probabilities(self) -> Tensor:
        """(B, K, X, Y[, Z]) probability of each structure, 0 in ignored voxels."""
        probabilities = self.log_probabilities[:, 1:].exp() if self.softmax else self.logits.sigmoid()
        return select_valid(probabilities, self.valid)

    @cached_property
    def cross_entropy(self) -> Tensor:
        """(B, M, X, Y[, Z]) nats, 0 in ignored voxels; M is 1 (softmax) or K."""
        if self.index is not None:
            return softmax_cross_entropy(self.log_probabilities, self.index, self.valid)
        return sigmoid_cross_entropy(self.logits, self.onehot, self.valid)

    @property
    def map_count(self) -> Tensor:
        """() number of valid entries of a (B, M, ...) map such as `cross_entropy`."""
        return self.count.sum() * (1 if self.softmax else self.structures)

    def _check_label_values(self) -> None:
        labels = self.labels if self.valid is None else torch.where(self.valid, self.labels, 0)
        low, high = labels.min().item(), labels.max().item()
        highest = max(self.structures, 1)
        fractions = labels.is_floating_point() and bool((labels.frac() > 0).any())
        if fractions or not (low >= 0 and high <= highest):  # so that NaN fails too
            ignored = "" if self.ignore_label is None else f" or the ignore label {self.ignore_label}"
            got = "fractions in " if fractions else ""
            raise DataError(
                f"labels: expected values 0..{highest}{ignored}, got {got}{low}..{high}. "
                "Declare the label in dataset.json, or pass it as ignore_label; scale label maps by nearest neighbour."
            )


def _check_shapes(logits: Tensor, labels: Tensor, ignore_label: int | None, regions: bool) -> None:
    if logits.ndim not in (4, 5) or not logits.is_floating_point():
        raise ShapeError(
            f"logits: expected floats of shape (B, C, X, Y) or (B, C, X, Y, Z), got {tuple(logits.shape)} "
            f"{logits.dtype}. Add the batch and channel axes."
        )
    channels = logits.shape[1] + (ignore_label is not None) if regions else 1
    expected = (logits.shape[0], channels, *logits.shape[2:])
    if tuple(labels.shape) != expected:
        what = "one-hot regions, the ignored voxels last" if ignore_label is not None else "one-hot regions"
        raise ShapeError(
            f"labels: expected shape {expected} ({what if regions else 'one channel of label values'}) for logits of "
            f"shape {tuple(logits.shape)}, got {tuple(labels.shape)}. Check regions= and ignore_label=, and that the "
            "labels belong to this output."
        )
    if logits.numel() == 0:
        raise ShapeError(f"logits: expected at least one voxel, got shape {tuple(logits.shape)}. Skip empty batches.")
