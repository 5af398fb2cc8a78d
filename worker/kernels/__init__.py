"""Kernels for attention and LoRA in torch, C++ and Triton. All must agree with `reference.py`."""
