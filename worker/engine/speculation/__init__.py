"""Proposes draft tokens, and decides how many are worth their cost."""
