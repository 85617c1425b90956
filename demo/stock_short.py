"""`nnUNetv2_train` with the stock trainer cut short, so that it can be compared on a CPU.

    python stock_short.py EPOCHS ITERATIONS VALIDATION_ITERATIONS <arguments of nnUNetv2_train>

The stock trainer reads the length of a run from nowhere, so it is set on the class. Nothing else differs from stock.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def shorten(trainer: type[nnUNetTrainer], epochs: int, iterations: int, validation_iterations: int) -> None:
    """Set the length of every run of that class.

    Args:
        trainer: the class itself, changed in place.
        epochs: instead of 1000.
        iterations: training steps an epoch, instead of 250.
        validation_iterations: validation steps an epoch, instead of 50.
    """
    original = trainer.__init__

    # wraps() keeps the signature, which nnU-Net's own __init__ inspects.
    @functools.wraps(original)
    def shortened(self: nnUNetTrainer, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.num_epochs = epochs
        self.num_iterations_per_epoch = iterations
        self.num_val_iterations_per_epoch = validation_iterations

    trainer.__init__ = shortened


if __name__ == "__main__":
    lengths = [int(word) for word in sys.argv[1:4]]
    del sys.argv[1:4]
    shorten(nnUNetTrainer, *lengths)
    run_training_entry()
