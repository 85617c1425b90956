"""Two results side by side, case by case: how large is the difference, and is it more than noise?"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_topo.errors import ConfigError, DataError
from nnunet_topo.evaluation.summaries import Scores, Summary, foreground_labels, read_summary
from nnunet_topo.metrics.registry import METRICS, metric_named

FOREGROUND = "foreground"
ENOUGH_CASES = 6
"""With fewer, even a win in every case comes about by chance more often than once in twenty (2 * 0.5**5 = 0.06)."""
_NAMED_CASES = 5
_BLOCK = 1000
# Scores taken with different ones of these are not scores of the same thing.
_SETTINGS = ("tolerance_mm", "connectivity", "ignore_label")

Verdict = Literal["better", "worse", "higher", "lower", "equal", "inside the noise", "too few cases"]


@dataclass(frozen=True)
class MetricDifference:
    """One metric of two results, over the cases where both have a value.

    Attributes:
        metric: name in the registry; the key of the file for a metric that the registry does not know.
        label: label or region, or `foreground` for the mean over all of them.
        higher_is_better: None when more is neither better nor worse.
        cases: number of cases compared.
        baseline: mean of the baseline.
        result: mean of the other one.
        difference: result minus baseline.
        interval: 95 % bootstrap interval of the difference; None with fewer than two cases.
        wins: cases in which the result is better; None without a direction.
        losses: cases in which the baseline is better.
        ties: cases with equal values.
        verdict: what follows.
    """

    metric: str
    label: str
    higher_is_better: bool | None
    cases: int
    baseline: float
    result: float
    difference: float
    interval: tuple[float, float] | None
    wins: int | None
    losses: int | None
    ties: int | None
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """A result against the baseline.

    Attributes:
        baseline: file of the baseline.
        result: file of the result.
        cases: the cases that both hold.
        only_in_baseline: cases that the result lacks.
        only_in_result: cases that the baseline lacks.
        differences: a row per metric and label.
        warnings: what a reader must know before believing the rows.
    """

    baseline: Path
    result: Path
    cases: list[str]
    only_in_baseline: list[str]
    only_in_result: list[str]
    differences: list[MetricDifference]
    warnings: list[str] = field(default_factory=list)


def compare_summaries(
    baseline: str | os.PathLike[str],
    result: str | os.PathLike[str],
    *,
    metrics: Sequence[str] | None = None,
    per_label: bool = False,
    seed: int = 0,
) -> Comparison:
    """Compare two results of the same cases.

    Args:
        baseline: summary.json or summary_topo.json, or a folder that holds one.
        result: the same of the other one.
        metrics: names; all that both files hold and that have a better direction by default.
        per_label: a row for each label besides the foreground, which is the mean over the labels.
        seed: of the bootstrap.

    Returns:
        Rows and warnings.

    Raises:
        ConfigError: an unknown metric, or one that a file lacks.
        DataError: no file, or no case or metric in common.
    """
    first, second = read_summary(baseline), read_summary(result)
    shared = [case for case in first.cases if case in second.cases]
    if not shared:
        raise DataError(
            f"cases: expected some that both results hold, got none. {first.file} holds {_some(first.cases)}; "
            f"{second.file} holds {_some(second.cases)}. Compare results of the same cases."
        )
    keys = _keys(first, second, metrics)
    labels = [label for label in foreground_labels(first.cases) if label in foreground_labels(second.cases)]
    if not labels:
        raise DataError(
            f"labels: expected some that both results hold, got {foreground_labels(first.cases)} and "
            f"{foreground_labels(second.cases)}. {first.file} and {second.file}."
        )
    comparison = Comparison(
        first.file,
        second.file,
        shared,
        [case for case in first.cases if case not in second.cases],
        [case for case in second.cases if case not in first.cases],
        [],
    )
    comparison.warnings.extend([*_missing(comparison), *_other_settings(first, second)])
    if len(shared) < ENOUGH_CASES:
        comparison.warnings.append(
            f"only {len(shared)} cases: too few to tell a difference from chance ({ENOUGH_CASES} at the least)"
        )
    groups = {FOREGROUND: labels, **({label: [label] for label in labels} if per_label else {})}
    for key in keys:
        for label, members in groups.items():
            pairs, one_sided = _pairs(first.cases, second.cases, shared, members, key)
            name = _name(key) if label == FOREGROUND else f"{_name(key)} of {label}"
            if one_sided:
                comparison.warnings.append(
                    f"{name}: left out where only one of the two has a value: {_some(one_sided)}"
                )
            if not pairs.size:
                comparison.warnings.append(f"{name}: no case has a value in both")
                continue
            row = metric_difference(pairs[0], pairs[1], key=key, label=label, seed=seed)
            comparison.differences.append(row)
            if row.verdict == "inside the noise" and row.interval:
                comparison.warnings.append(
                    f"{name}: the difference {row.difference:+.4g} is inside the noise "
                    f"(95 % interval {row.interval[0]:+.4g} to {row.interval[1]:+.4g})"
                )
    return comparison


def metric_difference(
    baseline: NDArray[np.float64], result: NDArray[np.float64], *, key: str, label: str = FOREGROUND, seed: int = 0
) -> MetricDifference:
    """Difference of one metric over paired cases.

    Args:
        baseline: (N,) finite values.
        result: (N,) finite values of the same cases.
        key: of the metric in the file.
        label: what the values belong to.
        seed: of the bootstrap.

    Returns:
        The row.
    """
    differences = result - baseline
    tied = np.isclose(result, baseline, rtol=1e-9, atol=1e-12)
    differences = np.where(tied, 0.0, differences)
    higher_is_better = _direction(key)
    difference = float(differences.mean())
    interval = bootstrap_interval(differences, seed=seed) if differences.size > 1 else None
    wins = losses = None
    if higher_is_better is not None:
        wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
        if not higher_is_better:
            wins, losses = losses, wins
    return MetricDifference(
        metric=_name(key),
        label=label,
        higher_is_better=higher_is_better,
        cases=int(differences.size),
        baseline=float(baseline.mean()),
        result=float(result.mean()),
        difference=difference,
        interval=interval,
        wins=wins,
        losses=losses,
        ties=None if wins is None else int(tied.sum()),
        verdict=_verdict(difference, interval, bool(tied.all()), int(differences.size), higher_is_better),
    )


def bootstrap_interval(
    differences: NDArray[np.float64], *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, resampling cases.

    Args:
        differences: (N,) one value a case, finite.
        confidence: share of the resampled means inside, 0 to 1.
        resamples: number of them.
        seed: equal seeds give equal intervals.

    Returns:
        Its two ends.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            differences[rng.integers(differences.size, size=(min(_BLOCK, resamples - start), differences.size))].mean(1)
            for start in range(0, resamples, _BLOCK)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _verdict(
    difference: float,
    interval: tuple[float, float] | None,
    all_tied: bool,
    cases: int,
    higher_is_better: bool | None,
) -> Verdict:
    if all_tied:
        return "equal"
    if interval is None or cases < ENOUGH_CASES:
        return "too few cases"
    if interval[0] <= 0 <= interval[1]:
        return "inside the noise"
    if higher_is_better is None:
        return "higher" if difference > 0 else "lower"
    return "better" if (difference > 0) == higher_is_better else "worse"


def _pairs(
    first: Scores, second: Scores, cases: Sequence[str], labels: Sequence[str], key: str
) -> tuple[NDArray[np.float64], list[str]]:
    """(2, N) means over the labels that have a value in both; and what has a value in one of the two alone."""
    rows, one_sided = [], []
    for case in cases:
        values = []
        for label in labels:
            pair = tuple(scores[case].get(label, {}).get(key, math.nan) for scores in (first, second))
            finite = [math.isfinite(value) for value in pair]
            if all(finite):
                values.append(pair)
            elif any(finite):
                one_sided.append(case if len(labels) == 1 else f"{case} (label {label})")
        if values:
            rows.append(np.mean(values, axis=0))
    return np.array(rows, dtype=np.float64).T, one_sided


def _keys(first: Summary, second: Summary, metrics: Sequence[str] | None) -> list[str]:
    held = [_held(summary) for summary in (first, second)]
    if metrics is None:
        keys = [key for key in held[0] if key in held[1] and _direction(key) is not None]
        if not keys:
            raise DataError(
                f"metrics: expected some that both results hold, got {_listed(held[0])} and {_listed(held[1])}. "
                f"{first.file} and {second.file}. Score both with 'nnunet-topo evaluate'."
            )
        return keys
    keys = list(dict.fromkeys(metric_named(name).key for name in metrics))
    for summary, present in zip((first, second), held, strict=True):
        missing = [_name(key) for key in keys if key not in present]
        if missing:
            raise ConfigError(
                f"--metrics: expected what both results hold, got {', '.join(missing)}. {summary.file} holds "
                f"{_listed(map(_name, present))}. Score it with 'nnunet-topo evaluate --metrics {' '.join(missing)}'."
            )
    return keys


def _held(summary: Summary) -> list[str]:
    return list(dict.fromkeys(key for case in summary.cases.values() for row in case.values() for key in row))


def _missing(comparison: Comparison) -> list[str]:
    return [
        f"{len(cases)} cases are missing in {file} and left out: {_some(cases)}"
        for cases, file in (
            (comparison.only_in_baseline, comparison.result),
            (comparison.only_in_result, comparison.baseline),
        )
        if cases
    ]


def _other_settings(first: Summary, second: Summary) -> list[str]:
    return [
        f"scored with different settings, {name}: {first.settings[name]} and {second.settings[name]}"
        for name in _SETTINGS
        if name in first.settings and name in second.settings and first.settings[name] != second.settings[name]
    ]


def _name(key: str) -> str:
    return key.lower() if key.lower() in METRICS else key


def _direction(key: str) -> bool | None:
    metric = METRICS.get(key.lower())
    return metric.higher_is_better if metric else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _some(cases: Sequence[str] | Scores) -> str:
    names = list(cases)
    more = f" and {len(names) - _NAMED_CASES} more" if len(names) > _NAMED_CASES else ""
    return (", ".join(names[:_NAMED_CASES]) or "none") + more
