"""Follows jobs through Redis on behalf of clients that are connected."""
