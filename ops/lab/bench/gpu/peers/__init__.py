"""Measurements of PEFT and vLLM for the GPU benchmark."""
