"""Renders tokens and results as events and response bodies. Nothing here reads Redis."""
