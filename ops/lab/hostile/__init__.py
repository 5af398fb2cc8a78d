"""Runs a pool with clients that try to hurt others, and checks that the others don't notice."""
