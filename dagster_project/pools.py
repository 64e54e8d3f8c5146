"""Pools, in which steps wait. Their limits are the instance's (see `instance.py`)."""

GPU_POOL = "gpu"
"""Captioners and trainers wait here, so that one GPU holds one model."""
