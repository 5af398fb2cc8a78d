"""Clients to copy."""
