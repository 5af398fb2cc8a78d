"""Runs a pool with clients that try to disturb other tenants, and checks that they can't."""
