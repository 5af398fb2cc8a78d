"""Triton kernels as they run on the device. The modules of the parent folder launch them."""
