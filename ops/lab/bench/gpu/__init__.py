"""The benchmark of a GPU. It runs with torch, triton, transformers and peft alone."""
