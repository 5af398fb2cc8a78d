"""Loads a model's files to the device, or refuses the model with an error that names it."""
