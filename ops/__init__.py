"""Runs, measures and documents the pool. `api`, `worker` and `shared` don't import this package."""
