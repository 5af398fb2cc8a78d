"""Faults that a chaos run injects, by the part that they hit. `kinds.py` lists all of them."""
