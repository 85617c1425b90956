"""Datasets: synthetic ones, checks of real ones, helpers to write nnU-Net's raw layout."""
