"""Peers of the benchmark of a GPU."""
