"""The GPU benchmark. It needs only torch, triton, transformers and peft."""
