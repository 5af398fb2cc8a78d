"""Benchmarks, a file or folder for each. `cli.py` lists their commands."""
