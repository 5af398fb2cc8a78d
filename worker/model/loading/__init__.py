"""Reads a model's files to the device, or refuses the model by name."""
