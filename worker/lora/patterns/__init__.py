"""Matches adapters' patterns against names of modules in linear time."""
