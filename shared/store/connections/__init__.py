"""Connections to Redis: their pool, and finding the master with Sentinels."""
