"""Topology-aware training for nnU-Net v2, as a plugin that stock nnU-Net picks up by itself."""

__version__ = "0.1.0"
