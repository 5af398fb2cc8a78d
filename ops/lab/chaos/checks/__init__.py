"""Checks during and after a chaos run."""
