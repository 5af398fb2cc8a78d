"""Clients that time each token of many streams."""
