"""Runs of batches, from the check of the input file to the result files."""
