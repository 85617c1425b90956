"""What every test of the repository shares."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")

# Examples share two cores with nnU-Net's worker processes: a time limit would measure those.
settings.register_profile("repository", deadline=None)
settings.load_profile("repository")
