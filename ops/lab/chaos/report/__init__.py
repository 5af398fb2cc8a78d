"""The report of a chaos run, and whether it passed."""
