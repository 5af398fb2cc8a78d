"""Runs of batches with a hostile tenant."""
