"""Simulated remote hosts, and links that drop or delay packets."""
