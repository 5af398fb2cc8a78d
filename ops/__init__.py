"""Runs, measures and documents the pool. Nothing in `api`, `worker` or `shared` imports it."""
