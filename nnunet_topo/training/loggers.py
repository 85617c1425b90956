"""The journal's values for other loggers: those that hang on nnU-Net's MetaLogger (W&B), and TensorBoard."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

from nnunet_topo.training.journal import json_legal


class EpochLogger(Protocol):
    """What nnU-Net's MetaLogger expects of each entry of its `loggers`."""

    def update_config(self, config: dict[str, Any]) -> None:
        """Add settings of the run."""

    def log(self, key: str, value: Any, step: int) -> None:
        """Log the value that `key` has at epoch `step`."""

    def log_summary(self, key: str, value: Any) -> None:
        """Log a value that exists once per run."""


class TensorBoardLogger:
    """Writes nnU-Net's and our values of a run as TensorBoard events.

    Made by `tensorboard_logger`. Append it to `MetaLogger.loggers` on one process only.

    Args:
        writer: a `torch.utils.tensorboard.SummaryWriter`.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._last_step = 0

    def update_config(self, config: dict[str, Any]) -> None:
        """Write each top-level entry of the settings as a text page.

        Args:
            config: settings; what JSON cannot hold is written as its `str`.
        """
        for key, value in config.items():
            text = json.dumps(value, indent=2, default=str)
            self._writer.add_text(f"config/{key}", "\n".join("    " + line for line in text.splitlines()), 0)
        self._writer.flush()

    def log(self, key: str, value: Any, step: int) -> None:
        """Write a number, or a list or array of one number per class as `key/class_1`, `key/class_2`, ...

        Args:
            key: name, with `/` between its groups.
            value: number, list, tuple, array or tensor. Text and None are left out.
            step: epoch, >= 0.
        """
        self._last_step = max(self._last_step, int(step))
        for name, number in _numbers(key, value):
            self._writer.add_scalar(name, number, step)
        self._writer.flush()

    def log_summary(self, key: str, value: Any) -> None:
        """Write a value that exists once per run, at the last epoch logged.

        Args:
            key: name, shown below `summary/`.
            value: as in `log`.
        """
        self.log(f"summary/{key}", value, self._last_step)


def tensorboard_logger(output_folder: str | os.PathLike[str], *, resume_epoch: int | None) -> TensorBoardLogger | None:
    """A logger that writes to `<output_folder>/tensorboard`, or None where TensorBoard is not installed.

    Args:
        output_folder: folder of the fold.
        resume_epoch: the first epoch that will be run (again); events of an earlier process from there on are hidden
            by TensorBoard. None for a new training, which hides all of them.

    Returns:
        The logger, or None when the package `tensorboard` cannot be imported.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    folder = Path(output_folder) / "tensorboard"
    return TensorBoardLogger(SummaryWriter(str(folder), purge_step=resume_epoch or 0))


def mend_moving_average(logger: Any) -> None:
    """Put the newest value of nnU-Net's moving average right where it is not finite.

    A pseudo Dice that is not finite (no foreground in any validation patch, and none predicted) would make stock's
    average NaN for the rest of the run. Here such an epoch leaves the average as it was.

    Args:
        logger: nnU-Net's MetaLogger behind an epoch's validation.
    """
    averages: list[float] = logger.get_value("ema_fg_dice", step=None)
    if not math.isfinite(averages[-1]):
        known = [value for value in averages[:-1] if math.isfinite(value)]
        averages[-1] = known[-1] if known else logger.get_value("mean_fg_dice", step=-1)
    # As a checkpoint keeps it: NumPy would go on in float32, and a resumed run in another last bit.
    averages[-1] = float(averages[-1])


def pseudo_dice_record(logger: Any) -> dict[str, Any]:
    """nnU-Net's Dice over the epoch's validation patches for the journal: of each class, mean and moving average."""
    names = {"pseudo_dice": "dice_per_class_or_region", "mean_pseudo_dice": "mean_fg_dice"}
    names["ema_pseudo_dice"] = "ema_fg_dice"
    return {ours: logger.get_value(theirs, step=-1) for ours, theirs in names.items()}


def forward_epoch(loggers: Iterable[EpochLogger], line: Mapping[str, Any]) -> None:
    """Send the numbers of one journal line of kind `epoch` to every logger.

    They go to the loggers directly because MetaLogger.log refuses names that nnU-Net does not know. Keys:
    `topo/{train,validation}/<term>` unweighted, `topo/{train,validation}_weighted/<term>`, `topo/weight/<term>`,
    `topo/loss/{train,validation}`, `topo/foreground/{predicted,labelled}`, `topo/pseudo_dice/{mean,ema,class_<n>}`,
    `topo/monitor/<name>`, `topo/reference/<term>`, `topo/conflict/<term>-<term>`,
    `topo/{lr,lr_multiplier,phase,duration_s}`.

    Args:
        loggers: usually `MetaLogger.loggers`.
        line: the mapping given to `Journal.append_epoch` or read back from the file. Missing values, None and values
            that are not finite are left out.
    """
    step = int(line["epoch"])
    values = [(key, number) for name, value in _named_values(json_legal(line)) for key, number in _numbers(name, value)]
    for logger in loggers:
        for key, number in values:
            logger.log(key, number, step)


def _named_values(line: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in ("lr", "lr_multiplier", "phase", "duration_s"):
        yield f"topo/{key}", line.get(key)
    for term, weight in (line.get("weights") or {}).items():
        yield f"topo/weight/{term}", weight
    for key, group in (("monitors", "monitor"), ("reference_terms", "reference"), ("conflict", "conflict")):
        for name, value in (line.get(key) or {}).items():
            yield f"topo/{group}/{name.replace('|', '-')}", value  # TensorBoard takes no bars
    for part in ("train", "validation"):
        section = line.get(part) or {}
        yield f"topo/loss/{part}", section.get("loss")
        for term, value in (section.get("terms") or {}).items():
            yield f"topo/{part}/{term}", value
        for term, value in (section.get("weighted") or {}).items():
            yield f"topo/{part}_weighted/{term}", value
    validation = line.get("validation") or {}
    yield "topo/pseudo_dice", validation.get("pseudo_dice")
    yield "topo/pseudo_dice/mean", validation.get("mean_pseudo_dice")
    yield "topo/pseudo_dice/ema", validation.get("ema_pseudo_dice")
    for side in ("predicted", "labelled"):
        yield f"topo/foreground/{side}", validation.get(f"foreground_{side}")


def _numbers(key: str, value: Any) -> Iterator[tuple[str, float]]:
    """The finite numbers of a value by name: one, or one per class."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _numbers(f"{key}/class_{index + 1}", item)
    elif isinstance(value, Real) and math.isfinite(value):
        yield key, float(value)
