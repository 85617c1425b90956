"""Offline scores on numpy arrays: topology first, nothing here needs nnU-Net or a GPU."""

from nnunet_topo.metrics.betti import betti_errors, betti_numbers
from nnunet_topo.metrics.betti_matching import betti_matching_counts, betti_matching_error
from nnunet_topo.metrics.leaderboard import LeaderboardScore, leaderboard_score
from nnunet_topo.metrics.voi import PartitionAgreement, partition_agreement

__all__ = [
    "LeaderboardScore",
    "PartitionAgreement",
    "betti_errors",
    "betti_matching_counts",
    "betti_matching_error",
    "betti_numbers",
    "leaderboard_score",
    "partition_agreement",
]
