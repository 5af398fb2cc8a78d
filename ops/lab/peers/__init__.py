"""Runs the client-side tests of other servers against Lorikeet."""
