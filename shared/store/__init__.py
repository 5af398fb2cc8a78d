"""Every access to Redis, sorted by subject."""
