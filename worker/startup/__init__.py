"""Starts a worker, until it registers: checks files, sizes memory, loads the model, warms up."""
