"""Faults that a chaos run injects, by the part that they hit."""
