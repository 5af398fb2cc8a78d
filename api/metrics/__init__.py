"""Prometheus metrics of this process and of the pool, and spans of requests."""
