"""Generators of pictures and tables in `ops/docs/`."""
