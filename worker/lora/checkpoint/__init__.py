"""Reads PEFT's files exactly, or refuses them with a reason."""
