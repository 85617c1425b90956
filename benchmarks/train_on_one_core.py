"""`nnUNetv2_train` for one core of a CPU: `python train_on_one_core.py <its arguments>`.

nnU-Net takes as many threads as there are cores, which trainings side by side cannot use; and torch's convolution of a
batch of one is several times slower on a CPU than that of two, so that two equal windows are predicted for one.
"""

from __future__ import annotations

import multiprocessing

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import run_training_entry

predict = nnUNetPredictor._internal_maybe_mirror_and_predict


def predict_twice(self: nnUNetPredictor, window: torch.Tensor) -> torch.Tensor:
    """Logits (1, C, X, Y, Z) of a window."""
    return predict(self, torch.cat([window, window]))[:1]


if __name__ == "__main__":
    multiprocessing.cpu_count = lambda: 1
    nnUNetPredictor._internal_maybe_mirror_and_predict = predict_twice
    run_training_entry()
