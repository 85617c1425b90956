"""Pure functions from tensors to tensors, one algorithm a file: the mathematics behind `nnunet_topo.losses`."""

from nnunet_topo.functional.barrier import separation_barrier
from nnunet_topo.functional.boundary import band_weights, boundary_loss
from nnunet_topo.functional.cbdice import soft_cbdice_loss
from nnunet_topo.functional.cldice import sharpen, soft_cldice_loss
from nnunet_topo.functional.components import component_ids
from nnunet_topo.functional.connectivity import connectivity_loss
from nnunet_topo.functional.cross_entropy import (
    class_weight_map,
    mean_cross_entropy,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)
from nnunet_topo.functional.dice import soft_dice_loss
from nnunet_topo.functional.distance import distance_to, signed_distance
from nnunet_topo.functional.distance_losses import distance_weights, hausdorff_loss, kervadec_loss
from nnunet_topo.functional.entropy import binary_entropy, categorical_entropy, entropy_floor_loss
from nnunet_topo.functional.focal import focal_loss
from nnunet_topo.functional.gap_surface import gap_surface
from nnunet_topo.functional.gather import sum_over_ranks
from nnunet_topo.functional.masks import masked_logits, structure_onehot, valid_mask
from nnunet_topo.functional.morphology import dilate
from nnunet_topo.functional.skeleton import mask_depth, mask_skeleton, soft_depth, soft_skeleton
from nnunet_topo.functional.skeleton_recall import skeleton_recall_loss
from nnunet_topo.functional.thinning import medial_surface, skeleton
from nnunet_topo.functional.tversky import tversky_loss
from nnunet_topo.functional.variance import variance_hinge_loss, variance_legacy_loss
from nnunet_topo.functional.weakest_link import weakest_link_loss
from nnunet_topo.functional.worst_neighbour import worst_neighbour

__all__ = [
    "band_weights",
    "binary_entropy",
    "boundary_loss",
    "categorical_entropy",
    "class_weight_map",
    "component_ids",
    "connectivity_loss",
    "dilate",
    "distance_to",
    "distance_weights",
    "entropy_floor_loss",
    "focal_loss",
    "gap_surface",
    "hausdorff_loss",
    "kervadec_loss",
    "mask_depth",
    "mask_skeleton",
    "masked_logits",
    "mean_cross_entropy",
    "medial_surface",
    "separation_barrier",
    "sharpen",
    "sigmoid_cross_entropy",
    "signed_distance",
    "skeleton",
    "skeleton_recall_loss",
    "soft_cbdice_loss",
    "soft_cldice_loss",
    "soft_depth",
    "soft_dice_loss",
    "soft_skeleton",
    "softmax_cross_entropy",
    "structure_onehot",
    "sum_over_ranks",
    "tversky_loss",
    "valid_mask",
    "variance_hinge_loss",
    "variance_legacy_loss",
    "weakest_link_loss",
    "worst_neighbour",
]
