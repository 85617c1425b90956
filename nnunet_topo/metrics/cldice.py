"""Centreline Dice of binary masks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nnunet_topo.functional.thinning import skeleton
from nnunet_topo.metrics.betti import check_mask, check_same_shape


def cldice(prediction: NDArray[np.bool_], ground_truth: NDArray[np.bool_]) -> float:
    """Harmonic mean of the shares of each mask's skeleton that lie inside the other mask.

    It sees breaks and missed branches of tubes however thin they are. It does not see holes in sheets well (the
    skeleton of a sheet is next to nothing), nor bridges between bodies: their skeleton is short.

    Args:
        prediction: (X, Y, Z) or (X, Y) bool.
        ground_truth: bool, same shape.

    Returns:
        In [0, 1]. Both masks empty: NaN. One empty: 0.

    Raises:
        ShapeError: shapes differ, or an array is not a 2-D or 3-D boolean array.

    Source:
        Shit et al., clDice, CVPR 2021, eq. 1 and 2. Differs from it in: the thinning, which loses no component and no
        branch (`functional.thinning.skeleton`: where a width is even, both middle voxels count), and values where a
        mask is empty.
    """
    check_mask("prediction", prediction)
    check_same_shape("ground_truth", ground_truth, prediction)
    if not prediction.any() or not ground_truth.any():
        return 0.0 if prediction.any() or ground_truth.any() else math.nan
    precision = _share_inside(prediction, ground_truth)
    sensitivity = _share_inside(ground_truth, prediction)
    return 2 * precision * sensitivity / (precision + sensitivity) if precision + sensitivity else 0.0


def _share_inside(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    thin = skeleton(mask)
    return int(np.count_nonzero(thin & other)) / int(np.count_nonzero(thin))
