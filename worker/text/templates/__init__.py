"""Renders chat templates. Adapters' templates run in child processes with limits."""
