"""Finds out what this machine has, what Lorikeet would use, and what is missing."""
