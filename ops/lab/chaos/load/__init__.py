"""Clients of a chaos run, and the records of their answers."""
