"""The base model: its forward pass on the kernels, verified against transformers'."""
