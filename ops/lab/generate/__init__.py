"""Generators of pictures and tables in the documentation. Tests check that these are current."""
