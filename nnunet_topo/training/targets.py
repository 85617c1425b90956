"""Label-derived targets computed in nnU-Net's augmentation workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, SegOnlyTransform
from torch import Tensor

from nnunet_topo.errors import ConfigError, DataError, ShapeError, nearest
from nnunet_topo.functional.masks import structure_onehot, valid_mask
from nnunet_topo.losses.label_targets import LABEL_TARGETS, label_target

if TYPE_CHECKING:
    from nnunet_topo.training.trainers import nnUNetTrainerTopo


class AppendLabelTargets(SegOnlyTransform):
    """Appends one tensor for each label-derived target to the list of label maps.

    Comes last, after DownsampleSegForDSTransform: nnU-Net's data loader drops unknown keys, but collates a list of
    segmentations entry by entry. Each target is (K, X, Y[, Z]), see `label_target`, and belongs to the label map at
    full resolution: scaled down by nearest neighbour, a skeleton of one voxel's width would fall apart. Without deep
    supervision the single label map becomes a list, provided there is a target to append.

    Args:
        names: targets, as in `CompoundLoss.target_names`.
        ignore_label: value of unlabelled voxels, or None.
        regions: label maps are one-hot regions, the last channel the ignored voxels when there is an ignore label.
        spacing: voxel edges in the order of the spatial axes, or None for cubic voxels.
        structures: number K of foreground classes (output channels less background, or 1). A patch does not tell: it
            may lack a class. With regions the channels are counted instead.

    Raises:
        ConfigError: an unknown name, or a number of structures below 1.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        ignore_label: int | None,
        regions: bool,
        spacing: Sequence[float] | None,
        structures: int = 1,
    ) -> None:
        super().__init__()
        for name in names:
            if name not in LABEL_TARGETS:
                raise ConfigError(
                    f"names: expected of {sorted(LABEL_TARGETS)}, got {name!r}.{nearest(name, LABEL_TARGETS)}"
                )
        if structures < 1:
            raise ConfigError(
                f"structures: expected at least 1, got {structures}. Pass the number of foreground classes."
            )
        self.names = tuple(names)
        self.ignore_label = ignore_label
        self.regions = regions
        self.spacing = None if spacing is None else tuple(float(edge) for edge in spacing)
        self.structures = structures

    def _apply_to_segmentation(self, segmentation: Tensor | list[Tensor], **params: Any) -> Tensor | list[Tensor]:
        if not self.names:
            return segmentation
        scales = segmentation if isinstance(segmentation, list) else [segmentation]
        labels = scales[0][None]
        structures = labels.shape[1] - (self.ignore_label is not None) if self.regions else self.structures
        self._check(labels, structures)
        valid = valid_mask(labels, ignore_label=self.ignore_label, regions=self.regions)
        onehot = structure_onehot(labels, structures, valid=valid, regions=self.regions)
        return [*scales, *(label_target(name, onehot, valid, self.spacing)[0] for name in self.names)]

    def _check(self, labels: Tensor, structures: int) -> None:
        if structures < 1 or (not self.regions and labels.shape[1] != 1):
            what = "a channel a region" if self.regions else "1 channel"
            raise ShapeError(
                f"segmentation: expected {what}, got shape {tuple(labels.shape[1:])}. "
                "Append this transform after the ones that turn labels into regions."
            )
        if self.regions:
            return
        known = labels if self.ignore_label is None else torch.where(labels == self.ignore_label, 0, labels)
        if known.max() > structures:
            raise DataError(
                f"segmentation: expected labels 0..{structures}, got {known.max().item()}. "
                "Pass structures= the number of foreground classes."
            )


def label_targets_for(trainer: nnUNetTrainerTopo, names: Sequence[str]) -> AppendLabelTargets:
    """The transform that appends those targets to a sample of a trainer's dataset."""
    labels = trainer.label_manager
    return AppendLabelTargets(
        names,
        ignore_label=labels.ignore_label,
        regions=labels.has_regions,
        spacing=trainer.patch_spacing(),
        structures=max(1, labels.num_segmentation_heads - 1),
    )


def append_to_pipelines(trainer: nnUNetTrainerTopo, transform: BasicTransform) -> None:
    """Let the pipelines of a trainer's loaders, when they are built, end with a transform."""
    # Stock calls both through self. They are static, hence the attributes of the instance.
    for pipeline in ("get_training_transforms", "get_validation_transforms"):
        setattr(trainer, pipeline, partial(_appended, getattr(type(trainer), pipeline), transform))


def _appended(transforms: Any, transform: BasicTransform, *args: Any, **kwargs: Any) -> Any:
    pipeline = transforms(*args, **kwargs)
    pipeline.transforms.append(transform)
    return pipeline
