"""Tokens and results as events and bodies. Nothing here reads Redis."""
