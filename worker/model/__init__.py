"""The base model. Its forward pass on the kernels is verified against that in transformers."""
