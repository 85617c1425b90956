"""What steers a run from epoch to epoch: objects with a state that a checkpoint keeps.

Every control has `start_epoch(epoch)` and `end_epoch(epoch, record)`, which return the events that happened, and
`state_dict()` / `load_state_dict()` with builtins only. The trainer calls them from nnU-Net's hooks in the order of
`build_controls`, on every rank alike, and executes the action that an event may hold. Nothing here touches a network:
all decisions follow from the records of the epochs.
"""

from nnunet_topo.control.build import build_controls
from nnunet_topo.control.event import Control, Event, load_control_states
from nnunet_topo.control.learning_rate import LearningRateControl
from nnunet_topo.control.phases import PhaseControl

__all__ = ["Control", "Event", "LearningRateControl", "PhaseControl", "build_controls", "load_control_states"]
