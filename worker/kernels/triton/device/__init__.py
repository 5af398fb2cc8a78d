"""Triton kernels as they run on the device."""
