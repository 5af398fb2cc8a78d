"""Decides which adapters are resident, and loads and evicts them."""
