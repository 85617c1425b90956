"""Pure functions from tensors to tensors, one algorithm a file: the mathematics behind `nnunet_topo.losses`."""

from nnunet_topo.functional.boundary import band_weights, boundary_loss
from nnunet_topo.functional.cldice import sharpen, soft_cldice_loss
from nnunet_topo.functional.connectivity import connectivity_loss
from nnunet_topo.functional.cross_entropy import (
    class_weight_map,
    mean_cross_entropy,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from nnunet_topo.functional.dice import soft_dice_loss
from nnunet_topo.functional.distance import signed_distance
from nnunet_topo.functional.entropy import binary_entropy, categorical_entropy, entropy_floor_loss
from nnunet_topo.functional.focal import focal_loss
from nnunet_topo.functional.gather import sum_over_ranks
from nnunet_topo.functional.masks import masked_logits, structure_onehot, valid_mask
from nnunet_topo.functional.morphology import dilate
from nnunet_topo.functional.skeleton import soft_skeleton
from nnunet_topo.functional.variance import variance_hinge_loss, variance_legacy_loss

__all__ = [
    "band_weights",
    "binary_entropy",
    "boundary_loss",
    "categorical_entropy",
    "class_weight_map",
    "connectivity_loss",
    "dilate",
    "entropy_floor_loss",
    "focal_loss",
    "masked_logits",
    "mean_cross_entropy",
    "sharpen",
    "sigmoid_cross_entropy",
    "signed_distance",
    "soft_cldice_loss",
    "soft_dice_loss",
    "soft_skeleton",
    "softmax_cross_entropy",
    "structure_onehot",
    "sum_over_ranks",
    "valid_mask",
    "variance_hinge_loss",
    "variance_legacy_loss",
]
