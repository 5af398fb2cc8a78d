"""Kernels for attention and LoRA: one interface, implemented in torch, C++ and Triton."""
