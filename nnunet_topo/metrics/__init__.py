"""Offline scores on numpy arrays: topology first, nothing here needs nnU-Net or a GPU."""
