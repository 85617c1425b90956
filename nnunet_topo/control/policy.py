"""By how much an escape from a plateau raises the learning rate: the diary's formulas, by name."""

from __future__ import annotations

import math

# Lower ends of the bands of the mean gradient norm before clipping, and the diary's factors in them.
_BANDS = (0.01, 0.1, 0.5)
_DIARY_FACTORS = (35.0, 25.0, 20.0, 12.0)
_HEAD_FACTORS = (2.0, 2.5, 2.0, 2.0)
_WITHOUT_NORM = (2.0, 1.5, 1.2)
_CONSERVATIVE_LIMIT = 1.6


def lr_scale(policy: str, *, gradient_norm: float | None, plateaus: int, interventions: int) -> float | None:
    """Factor on the schedule's learning rate that a policy asks for, before the recipe's cap.

    With n = `plateaus`, i = `interventions` and g the gradient norm (bands below 0.01, 0.1, 0.5 and above):

    - `diary_0.3`: (35, 25, 20, 12)[g] * (1 + 0.3 (n - 1))
    - `diary_0.85`: (35, 25, 20, 12)[g] * (1.5 + 0.85 (n - 1))
    - `diary_0.15`: (35, 25, 20, 12)[g] * (1 + 0.15 (n - 1)), which the diary called conservative
    - `head`: (2, 2.5, 2, 2)[g] * (1 + 0.1 min(n - 1, 3)), at most 5; the third time 0.8 of it, then nothing more
    - `conservative`: 1 + 0.15 n, at most 1.6: what the diary announced, without the factors that it left in

    Where g is unknown, (2, 1.5, 1.2)[min(i, 2)] stands in for its factor.

    Args:
        policy: one of the names above.
        gradient_norm: mean norm of the epoch's gradients before clipping; None or not finite: unknown.
        plateaus: >= 1, plateaus so far, this one included.
        interventions: >= 0, how often the learning rate was raised before.

    Returns:
        A factor >= 1, None when the policy has nothing more to offer.
    """
    n, i = plateaus, interventions
    if policy == "conservative":
        return min(1 + 0.15 * n, _CONSERVATIVE_LIMIT)
    factors = _HEAD_FACTORS if policy == "head" else _DIARY_FACTORS
    if gradient_norm is None or not math.isfinite(gradient_norm):
        scale = _WITHOUT_NORM[min(i, 2)]
    else:
        scale = factors[sum(gradient_norm >= edge for edge in _BANDS)]
    if policy == "diary_0.3":
        return scale * (1 + 0.3 * (n - 1))
    if policy == "diary_0.85":
        return scale * (1.5 + 0.85 * (n - 1))
    if policy == "diary_0.15":
        return scale * (1 + 0.15 * (n - 1))
    if i > 2:
        return None
    return min(scale * (1 + 0.1 * min(n - 1, 3)), 5.0) * (0.8 if i == 2 else 1.0)
