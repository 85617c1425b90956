"""Terms that look at skeletons: cldice, cbdice, skeleton_recall, medial_surface_recall."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nnunet_topo.functional.cbdice import soft_cbdice_loss
from nnunet_topo.functional.cldice import soft_cldice_loss
from nnunet_topo.functional.skeleton_recall import skeleton_recall_loss
from nnunet_topo.losses import checks
from nnunet_topo.losses.term import Term
from nnunet_topo.losses.view import View


class ClDice(Term):
    """`cldice`: one minus the mean soft clDice of the structures; full resolution only. Range [0, 1].

    Args:
        iterations: erosions, >= 1; about half the largest thickness in voxels. None: as many as each structure of each
            sample needs to come down to its skeleton, at most 16; on a GPU that waits for the device.
        smooth: > 0, in voxels of skeleton.
        sharpness: >= 1, factor on the logit before the prediction's skeleton is taken, so that a faint background does
            not drown it; 1 is Shit et al.
        **common: see `Term`.

    Source:
        See `soft_cldice_loss`.
    """

    loss = staticmethod(soft_cldice_loss)

    def __init__(
        self, *, iterations: int | None = None, smooth: float = 1e-5, sharpness: float = 4.0, **common: Any
    ) -> None:
        super().__init__(**common)
        self.iterations = None if iterations is None else checks.integer("iterations", iterations, low=1)
        self.smooth = checks.number("smooth", smooth, low=0.0, above=True)
        self.sharpness = checks.number("sharpness", sharpness, low=1.0, high=16.0)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `soft_cldice_loss` and `soft_cbdice_loss`."""
        return self.loss(
            view.probabilities,
            view.onehot,
            iterations=self.iterations,
            smooth=self.smooth,
            sharpness=self.sharpness,
            batch_dice=self.batch_dice,
        )


class CbDice(ClDice):
    """`cbdice`: one minus the mean soft centreline boundary Dice; full resolution only. Range [0, 1].

    As `cldice`, with the same parameters, but each skeleton voxel counts by how much of its radius is met.

    Args:
        **parameters: see `ClDice`.

    Source:
        See `soft_cbdice_loss`.
    """

    loss = staticmethod(soft_cbdice_loss)


class SkeletonRecall(Term):
    """`skeleton_recall`: recall on the labels' skeleton with precision; full resolution only. Range [0, 1].

    Args:
        tube: voxels >= 0 by which the skeleton is thickened, within the structure.
        beta: > 0, how many times as much recall counts as precision.
        smooth: > 0, voxels.
        **common: see `Term`.

    Source:
        See `skeleton_recall_loss`.
    """

    target_names = ("skeleton",)

    def __init__(self, *, tube: int = 1, beta: float = 1.0, smooth: float = 1e-5, **common: Any) -> None:
        super().__init__(**common)
        self.tube = checks.integer("tube", tube, low=0)
        self.beta = checks.number("beta", beta, low=0.0, high=100.0, above=True)
        self.smooth = checks.number("smooth", smooth, low=0.0, above=True)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `skeleton_recall_loss`."""
        return skeleton_recall_loss(
            view.probabilities,
            view.onehot,
            self.label_target(self.target_names[0], view, targets),
            tube=self.tube,
            beta=self.beta,
            smooth=self.smooth,
            batch_dice=self.batch_dice,
        )


class MedialSurfaceRecall(SkeletonRecall):
    """`medial_surface_recall`: recall on the labels' medial surface with precision, for sheets. Range [0, 1].

    Args:
        **parameters: see `SkeletonRecall`; `tube` is 0 by default, since a sheet is often as thin as its tube.

    Source:
        As `skeleton_recall`, on `nnunet_topo.functional.thinning.medial_surface`.
    """

    target_names = ("medial_surface",)

    def __init__(self, *, tube: int = 0, beta: float = 1.0, smooth: float = 1e-5, **common: Any) -> None:
        super().__init__(tube=tube, beta=beta, smooth=smooth, **common)
