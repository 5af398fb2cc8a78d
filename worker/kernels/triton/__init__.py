"""Launches of the Triton kernels."""
