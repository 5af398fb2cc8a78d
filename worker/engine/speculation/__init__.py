"""Proposes draft tokens, and decides how many of them a step verifies."""
