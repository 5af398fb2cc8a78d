"""Finds the tenant of a request, and checks what its API key may use."""
