"""Basis of all stores: connections, names of keys, scripts, retries and durability."""
