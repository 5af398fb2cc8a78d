"""The chaos run: a pool under load, faults, and a check of every answer."""
