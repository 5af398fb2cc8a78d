"""Who sends a request, and what its key may use."""
