"""Measurements, chaos runs, attacks and generators.

Neither the wheel nor the Docker images contain this package.
"""
