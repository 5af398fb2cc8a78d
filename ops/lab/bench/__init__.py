"""Benchmarks, a file or folder for each."""
