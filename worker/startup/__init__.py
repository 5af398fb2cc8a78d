"""Startup of a worker, until it registers: checks, sizes, loading and warm-up."""
