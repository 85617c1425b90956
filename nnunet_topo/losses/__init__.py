"""Loss terms: `make_term(name, ...)` gives one, `CompoundLoss` weighs several, with deep supervision."""

from nnunet_topo.losses.compound import CompoundLoss
from nnunet_topo.losses.label_targets import LABEL_TARGETS
from nnunet_topo.losses.registry import NNUNET_TERM, TERMS, check_parameters, make_term
from nnunet_topo.losses.term import Term
from nnunet_topo.losses.view import View

__all__ = [
    "LABEL_TARGETS",
    "NNUNET_TERM",
    "TERMS",
    "CompoundLoss",
    "Term",
    "View",
    "check_parameters",
    "make_term",
]
