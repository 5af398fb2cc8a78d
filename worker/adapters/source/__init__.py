"""Checks the sources of adapters, and reads adapters from them."""
