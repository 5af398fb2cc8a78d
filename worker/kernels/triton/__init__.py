"""Launches the Triton kernels in `device/`. `variants.py` must cover each new variant."""
