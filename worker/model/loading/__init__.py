"""Loads a model's files to the device, or raises an error that names the refused model."""
