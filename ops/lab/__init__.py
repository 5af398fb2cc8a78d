"""Measurements, chaos, attacks and generators. Neither the wheel nor the images contain it."""
