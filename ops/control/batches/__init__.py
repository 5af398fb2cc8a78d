"""Runs batches: checks input files, answers their requests, and writes output files."""
