"""Routes for adapters."""
