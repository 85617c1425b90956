"""The controls of a recipe, in the order in which they decide."""

from __future__ import annotations

from nnunet_topo.control.averaging import AveragingControl
from nnunet_topo.control.early_stopping import EarlyStoppingControl
from nnunet_topo.control.event import Control
from nnunet_topo.control.learning_rate import LearningRateControl
from nnunet_topo.control.monitor import BestControl, keeps_weights
from nnunet_topo.control.noise import NoiseControl
from nnunet_topo.control.phases import PhaseControl
from nnunet_topo.control.plateau import PlateauControl
from nnunet_topo.control.rollback import RollbackControl
from nnunet_topo.control.watch import MonitorWatch
from nnunet_topo.recipe import Recipe


def build_controls(recipe: Recipe) -> dict[str, Control]:
    """The controls that a recipe asks for, by name.

    The order is that of the decisions in an epoch, and of the actions that come from them:

    1. `phases`, `learning_rate`: what the calendar says, and the decay of a boost by one epoch, before a new one.
    2. `monitors`, `best`: failures are named; `checkpoint_best_topo.pth` is due when `best.improved`.
    3. `kept_weights`, then `rollback`: the weights are kept when `kept_weights.improved`, before they are needed.
    4. `plateau`: knows of this epoch's rollback.
    5. `noise`, `averaging`: by the calendar.
    6. `early_stopping`: last, it ends the run behind everything else.

    `phases`, `learning_rate`, `monitors` and `best` are always there, the others where the recipe asks for them.
    """
    settings = recipe.monitor
    phases, learning_rate = PhaseControl(recipe), LearningRateControl(recipe)
    controls: dict[str, Control] = {
        "phases": phases,
        "learning_rate": learning_rate,
        "monitors": MonitorWatch(recipe),
        "best": BestControl(settings.best),
    }
    kept = rollback = None
    if keeps_weights(recipe):
        controls["kept_weights"] = kept = BestControl(settings.rollback)
        if recipe.rollback is not None:
            controls["rollback"] = rollback = RollbackControl(recipe, kept)
    if recipe.plateau is not None:
        controls["plateau"] = PlateauControl(recipe, learning_rate, kept, rollback)
    if recipe.noise is not None:
        controls["noise"] = NoiseControl(recipe)
    if recipe.averaging.kind != "none":
        controls["averaging"] = AveragingControl(recipe)
    if recipe.early_stopping is not None:
        controls["early_stopping"] = EarlyStoppingControl(recipe)
    return controls
