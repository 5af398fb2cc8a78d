"""Runs batches: checks input files, sends their requests, and writes the output files."""
