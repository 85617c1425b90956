"""`nnUNetv2_train` with the stock trainer cut short, so that it can be compared on a CPU.

    python short_stock_training.py EPOCHS ITERATIONS VALIDATION_ITERATIONS <arguments of nnUNetv2_train>

Only these three numbers of nnUNetTrainer differ from stock.
"""

from __future__ import annotations

import functools
import sys
from typing import Any


def shorten(trainer_class: type, epochs: int, iterations: int, validation_iterations: int) -> None:
    """Make every instance of a trainer class run that short."""
    original = trainer_class.__init__

    # nnU-Net reads the signature of __init__ and looks its names up among its own locals: wraps() keeps it.
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.num_epochs = epochs
        self.num_iterations_per_epoch = iterations
        self.num_val_iterations_per_epoch = validation_iterations

    trainer_class.__init__ = __init__


def main() -> None:
    """Shorten, then hand over to nnU-Net's own entry point."""
    from nnunetv2.run.run_training import run_training_entry
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    epochs, iterations, validation_iterations = (int(word) for word in sys.argv[1:4])
    del sys.argv[1:4]
    shorten(nnUNetTrainer, epochs, iterations, validation_iterations)
    run_training_entry()


if __name__ == "__main__":
    main()
