"""The yardstick of `find-best`: one metric that ranks, and guards that others must not fall below."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.metrics.registry import Metric, metric_named

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Guard:
    """How far a metric may be from the best candidate's.

    Attributes:
        metric: the one that is guarded.
        change: allowed change for the worse, <= 0 where higher is better, >= 0 where lower is.
    """

    metric: Metric
    change: float

    @property
    def text(self) -> str:
        """As users write it."""
        return f"{self.metric.name}:{self.change:+g}"


@dataclass(frozen=True)
class Judge:
    """What decides.

    Attributes:
        metric: the one that ranks.
        guards: conditions on others.
    """

    metric: Metric
    guards: tuple[Guard, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all metrics that are needed, each once."""
        return tuple(dict.fromkeys([self.metric.name, *(guard.metric.name for guard in self.guards)]))

    def limits(self, summaries: Sequence[Mapping[str, Any]]) -> dict[Guard, float]:
        """Worst value of each guarded metric that is let through.

        Args:
            summaries: of all candidates, in the shape of summary.json.

        Returns:
            The best candidate's mean of that metric, plus the allowed change.

        Raises:
            DataError: no candidate has a value.
        """
        limits = {}
        for guard in self.guards:
            values = [mean_of(summary, guard.metric) for summary in summaries]
            limits[guard] = _best(values, guard.metric) + guard.change
        return limits

    def violations(self, summary: Mapping[str, Any], limits: Mapping[Guard, float]) -> list[str]:
        """Guards that a candidate breaks, in words; an undefined value breaks them."""
        broken = []
        for guard, limit in limits.items():
            value = mean_of(summary, guard.metric)
            if not (math.isfinite(value) and at_least_as_good(value, limit, guard.metric)):
                side = "below" if guard.metric.higher_is_better else "above"
                broken.append(f"{guard.metric.name} {value:.4f} is {side} {limit:.4f} ({guard.text})")
        return broken

    def choose(
        self, summaries: Mapping[str, Mapping[str, Any]], limits: Mapping[Guard, float]
    ) -> tuple[str, dict[str, list[str]]]:
        """The best candidate of those that keep to all guards.

        Args:
            summaries: by candidate, the simplest first: it wins a tie.
            limits: of the guards.

        Returns:
            Name of the best; and the broken guards of every candidate that was left out.

        Raises:
            DataError: none is left, or none has a value.
        """
        broken = {name: self.violations(summary, limits) for name, summary in summaries.items()}
        excluded = {name: reasons for name, reasons in broken.items() if reasons}
        allowed = [name for name in summaries if name not in excluded]
        if not allowed:
            listed = "; ".join(f"{name}: {', '.join(reasons)}" for name, reasons in excluded.items())
            raise DataError(f"--guard: expected a candidate that keeps to all guards, got none. {listed}. Relax one.")
        values = {name: mean_of(summaries[name], self.metric) for name in allowed}
        best = _best(list(values.values()), self.metric)
        return next(name for name in allowed if values[name] == best), excluded


def parse_judge(metric: str, guards: Sequence[str] = ()) -> Judge:
    """The judge that a user describes.

    Args:
        metric: name of the metric that ranks.
        guards: `NAME:CHANGE` each, as in `dice:-0.005`.

    Raises:
        ConfigError: an unknown metric, one that has no better direction, or a change in the wrong direction.
    """
    return Judge(_with_direction(metric, "--metric"), tuple(parse_guard(text) for text in guards))


def parse_guard(text: str) -> Guard:
    """A guard as users write it.

    Args:
        text: `dice:-0.005` lets the mean Dice be at most 0.005 below the best candidate's; `hd95:+2` lets HD95 be at
            most 2 above.

    Raises:
        ConfigError: as for `parse_judge`.
    """
    match = re.fullmatch(r"\s*([^:]+?)\s*:\s*(\S+)\s*", text)
    try:
        change = float(match[2]) if match else math.nan
    except ValueError:
        change = math.nan
    if match is None or not math.isfinite(change):
        raise ConfigError(f"--guard: expected METRIC:CHANGE, got '{text}'. Write for example 'dice:-0.005'.")
    metric = _with_direction(match[1], "--guard")
    if change and (change > 0) == metric.higher_is_better:
        better = "higher" if metric.higher_is_better else "lower"
        raise ConfigError(
            f"--guard: expected how much worse {metric.name} may be ({better} is better), got '{text}'. "
            f"Write '{metric.name}:{-change:+g}'."
        )
    return Guard(metric, change)


def mean_of(summary: Mapping[str, Any], metric: Metric, label: str | None = None) -> float:
    """A metric's mean in a summary.

    Args:
        summary: in the shape of summary.json.
        metric: the one wanted.
        label: label or region; the foreground's mean by default.

    Returns:
        The value, NaN where it is undefined.

    Raises:
        DataError: the summary lacks the metric.
    """
    means = summary["foreground_mean"] if label is None else summary["mean"][label]
    if metric.key not in means:
        raise DataError(f"{metric.name}: expected it among the scores, got {', '.join(means)}. Score the folder again.")
    value = means[metric.key]
    return math.nan if value is None else float(value)


def is_better(value: float, than: float, metric: Metric) -> bool:
    """Whether a value is strictly better than another; an undefined one is not."""
    return value > than if metric.higher_is_better else value < than


def at_least_as_good(value: float, limit: float, metric: Metric) -> bool:
    """Whether a value is no worse than a limit, but for rounding."""
    return value >= limit - _ROUNDING if metric.higher_is_better else value <= limit + _ROUNDING


def _best(values: Sequence[float], metric: Metric) -> float:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        raise DataError(f"{metric.name}: expected a value for at least one candidate, got none. Choose another metric.")
    return max(finite) if metric.higher_is_better else min(finite)


def _with_direction(name: str, argument: str) -> Metric:
    metric = metric_named(name)
    if metric.higher_is_better is None:
        raise ConfigError(
            f"{argument}: expected a metric that can be better or worse, got '{metric.name}' ({metric.description}). "
            "Choose another."
        )
    return metric
