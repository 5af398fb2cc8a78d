"""Rights of API keys, and the use of their limits."""
