"""Terms that look at the few voxels on which connections depend: connectivity, separation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nnunet_topo.errors import ConfigError
from nnunet_topo.functional.connectivity import connectivity_loss
from nnunet_topo.functional.weakest_link import weakest_link_loss
from nnunet_topo.losses import checks
from nnunet_topo.losses.term import Term
from nnunet_topo.losses.view import View


class Separation(Term):
    """`separation`: no bridge between different components of the labels; full resolution only. Range [0, 1].

    Errors are the probabilities on the barrier between the components. It asks for nothing but background there: never
    alone.

    Args:
        power: >= 1, exponent of the error; see `weakest_link_loss`.
        **common: see `Term`.
    """

    target_names = ("separation_barrier",)

    def __init__(self, *, power: float = 4.0, **common: Any) -> None:
        super().__init__(**common)
        self.power = checks.number("power", power, low=1.0, high=16.0)

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `weakest_link_loss` and `separation_barrier`."""
        barrier = self.label_target("separation_barrier", view, targets)
        return weakest_link_loss(view.probabilities, barrier, power=self.power, batch_dice=self.batch_dice)


class Connectivity(Term):
    """`connectivity`: gaps, holes and bridges of a single voxel; full resolution only. Range [0, 1].

    Args:
        form: "weakest_link", the mean of the missing probability on the labels' medial surface (gaps and holes) and of
            the probability on their gap surface (bridges), each by `weakest_link_loss`; or "legacy", the diary's
            agreement of dilated masks, which sees neither.
        power: >= 1, exponent of the error; "weakest_link" only.
        kernel_size: edge of the dilating cube in voxels, odd, >= 3; "legacy" only.
        **common: see `Term`.
    """

    FORMS = ("weakest_link", "legacy")

    def __init__(self, *, form: str = "weakest_link", power: float = 4.0, kernel_size: int = 3, **common: Any) -> None:
        super().__init__(**common)
        if form not in self.FORMS:
            raise ConfigError(f"form: expected one of {', '.join(self.FORMS)}, got {form!r}.")
        self.form = form
        self.power = checks.number("power", power, low=1.0, high=16.0)
        self.kernel_size = checks.integer("kernel_size", kernel_size, low=3)
        if kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size: expected an odd number, got {kernel_size}.")
        self.target_names = () if form == "legacy" else ("medial_surface", "gap_surface")

    def evaluate(self, view: View, targets: Mapping[str, Tensor]) -> Tensor:
        """See `weakest_link_loss`; `connectivity_loss` for "legacy"."""
        if self.form == "legacy":
            return connectivity_loss(
                view.probabilities,
                view.onehot,
                view.count.sum(),
                valid=view.valid,
                kernel_size=self.kernel_size,
                batch_dice=self.batch_dice,
            )
        shared: dict[str, Any] = {"power": self.power, "batch_dice": self.batch_dice}
        links, gaps = (self.label_target(name, view, targets) for name in self.target_names)
        missing = weakest_link_loss(1.0 - view.probabilities, links, **shared)
        bridged = weakest_link_loss(view.probabilities, gaps, **shared)
        return (missing + bridged) / 2
