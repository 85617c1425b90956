"""Every metric by name: its key in summary.json, which direction is better, and the sets that suit a field."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_topo.errors import ConfigError, nearest


@dataclass(frozen=True)
class Metric:
    """What a metric is called and how its values compare.

    Attributes:
        name: lower-case, as users write it.
        key: its key in summary.json; nnU-Net's own spelling for its own metrics, the name otherwise.
        higher_is_better: None for counts and shares of which more is neither better nor worse.
        unit: of the value, empty for a share or a score.
        description: one line.
    """

    name: str
    key: str
    higher_is_better: bool | None
    unit: str
    description: str


def _numbers_of_both(dimension: int, what: str) -> tuple[Metric, Metric]:
    predicted, labelled = f"betti_{dimension}_predicted", f"betti_{dimension}_labelled"
    return (
        Metric(predicted, predicted, None, what, f"{what} of the prediction (Betti number {dimension})"),
        Metric(labelled, labelled, None, what, f"{what} of the ground truth (Betti number {dimension})"),
    )


def _error(dimension: int, what: str) -> Metric:
    name = f"betti_{dimension}_error"
    return Metric(name, name, False, what, f"difference of the numbers of {what}, as an absolute value")


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("dice", "Dice", True, "", "overlap, 2 TP / (2 TP + FP + FN)"),
        Metric("iou", "IoU", True, "", "overlap, TP / (TP + FP + FN)"),
        Metric("tp", "TP", None, "voxels", "foreground in both"),
        Metric("fp", "FP", None, "voxels", "foreground in the prediction alone"),
        Metric("fn", "FN", None, "voxels", "foreground in the ground truth alone"),
        Metric("tn", "TN", None, "voxels", "background in both"),
        Metric("n_pred", "n_pred", None, "voxels", "foreground of the prediction"),
        Metric("n_ref", "n_ref", None, "voxels", "foreground of the ground truth"),
        Metric("precision", "precision", True, "", "share of the predicted foreground that is right"),
        Metric("recall", "recall", True, "", "share of the labelled foreground that was found"),
        Metric("accuracy", "accuracy", True, "", "share of all voxels that are right"),
        Metric("cldice", "cldice", True, "", "harmonic mean of the shares of each skeleton inside the other mask"),
        _error(0, "components"),
        _error(1, "loops"),
        _error(2, "cavities"),
        *_numbers_of_both(0, "components"),
        *_numbers_of_both(1, "loops"),
        *_numbers_of_both(2, "cavities"),
        Metric("euler_error", "euler_error", False, "", "absolute difference of the Euler characteristics"),
        Metric(
            "betti_matching_error",
            "betti_matching_error",
            False,
            "features",
            "components, loops and cavities without a partner at the same place",
        ),
        Metric("surface_dice", "surface_dice", True, "", "share of both surfaces within the tolerance of the other"),
        Metric("hd95", "hd95", False, "mm", "95th percentile of the distances between the surfaces"),
        Metric("assd", "assd", False, "mm", "mean distance between the surfaces"),
        Metric("voi_split", "voi_split", False, "bits", "variation of information of components: what was split"),
        Metric("voi_merge", "voi_merge", False, "bits", "variation of information of components: what was merged"),
        Metric("ari", "ari", True, "", "adjusted Rand index of components"),
        Metric("foreground_predicted", "foreground_predicted", None, "", "share of voxels predicted as foreground"),
        Metric("foreground_labelled", "foreground_labelled", None, "", "share of voxels labelled as foreground"),
        Metric(
            "leaderboard",
            "leaderboard",
            True,
            "",
            "score of the Vesuvius surface detection competition",
        ),
        Metric("topo_score", "topo_score", True, "", "the leaderboard's share of matched features"),
        Metric("voi_score", "voi_score", True, "", "the leaderboard's 1 / (1 + 0.3 (voi_split + voi_merge))"),
    )
}

NNUNET_METRICS = ("dice", "iou", "tp", "fp", "fn", "tn", "n_pred", "n_ref")
"""What nnU-Net's summary.json holds; always computed, so that its commands can read ours."""

_FOREGROUND = ("foreground_predicted", "foreground_labelled")
_BETTI_ERRORS = ("betti_0_error", "betti_1_error", "betti_2_error")

PRESETS: dict[str, tuple[str, ...]] = {
    # The competition's score with its parts.
    "vesuvius": (
        "leaderboard", "topo_score", "surface_dice", "voi_score", "voi_split", "voi_merge", "dice", *_FOREGROUND,
    ),
    # Thin trees: breaks, missed branches and false loops.
    "vessel": (
        "cldice", "dice", "precision", "recall", "betti_0_error", "betti_1_error", "surface_dice", "hd95",
        *_FOREGROUND,
    ),
    # Bodies with walls between them: holes, bridges and cavities.
    "volumetric": (
        "dice", "iou", "surface_dice", "hd95", "assd", *_BETTI_ERRORS, "voi_split", "voi_merge", "ari", *_FOREGROUND,
    ),
}  # fmt: skip

DEFAULT_METRICS: tuple[str, ...] = (
    "dice", "iou", "precision", "recall", "cldice", "surface_dice", *_BETTI_ERRORS, "euler_error", *_FOREGROUND,
)  # fmt: skip
"""About a second for a volume of 128^3."""


def metric_named(text: str) -> Metric:
    """The metric of that name, upper and lower case alike.

    Args:
        text: its name or its key in summary.json.

    Returns:
        The metric.

    Raises:
        ConfigError: there is none; the message names the nearest and all others.
    """
    name = text.strip().lower()
    if name not in METRICS:
        raise ConfigError(
            f"metric: expected one of {', '.join(METRICS)}, got '{text}'.{nearest(name, METRICS)} "
            "The documentation (docs/metrics.md) says what each is."
        )
    return METRICS[name]
