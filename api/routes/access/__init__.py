"""Routes about the access of clients."""
