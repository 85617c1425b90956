"""GPU memory of a configuration, by nnU-Net's own rule of thumb."""

from __future__ import annotations

import pydoc
from collections.abc import Mapping
from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

# Feature-map voxels that nnU-Net's planners hold to fill 8 GB, and the batch size meant: by residual encoder or not,
# then by number of axes. Their larger presets scale these nearly in proportion.
_REFERENCE_GB = 8.0
_REFERENCE_VOXELS = {(False, 3): 560e6, (False, 2): 85e6, (True, 3): 680e6, (True, 2): 135e6}
_REFERENCE_BATCH = {3: 2, 2: 12}


def estimated_memory_gb(plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any]) -> float | None:
    """Estimated GPU memory of training, in GB; the activations dominate, so it is proportional to batch times voxels.

    The network is built without storage for its weights. It is nnU-Net's planning estimate, not a measurement: mixed
    precision, the framework and topology terms shift it.

    Args:
        plans: nnU-Net's plans.
        configuration: name of a configuration.
        dataset_json: the dataset's description, for channels and classes.

    Returns:
        GB, or None for an architecture that can't be imported here or can't tell its feature-map size.

    Source:
        nnU-Net v2.8, ExperimentPlanner and ResEncUNetPlanner (reference values), compute_conv_feature_map_size.
    """
    manager = PlansManager(dict(plans))
    settings = manager.get_configuration(configuration)
    labels = manager.get_label_manager(dict(dataset_json))
    if not _is_importable(settings.network_arch_class_name):
        return None  # no reason not to write the plans: the network may be installed where they are used
    with torch.device("meta"):
        network = get_network_from_plans(
            settings.network_arch_class_name,
            settings.network_arch_init_kwargs,
            settings.network_arch_init_kwargs_req_import,
            determine_num_input_channels(manager, settings, dict(dataset_json)),
            labels.num_segmentation_heads,
            allow_init=False,
        )
    if not hasattr(network, "compute_conv_feature_map_size"):
        return None
    axes = len(settings.patch_size)
    residual = "n_blocks_per_stage" in settings.network_arch_init_kwargs
    voxels = float(network.compute_conv_feature_map_size(settings.patch_size)) * settings.batch_size
    return _REFERENCE_GB * voxels / (_REFERENCE_VOXELS[residual, axes] * _REFERENCE_BATCH[axes])


def _is_importable(dotted_name: str) -> bool:
    try:
        return pydoc.locate(dotted_name) is not None
    except pydoc.ErrorDuringImport:
        return False
