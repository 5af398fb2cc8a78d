"""Claimed jobs: their requests, their progress, and the publication of their tokens."""
