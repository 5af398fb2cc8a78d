"""Read-only views of a pool for clients and operators."""
