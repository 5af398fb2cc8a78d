"""Builds the wheel, with kernels for every kind of CPU."""
