"""Servers that benchmarks start: this one, peers, and other checkouts."""
