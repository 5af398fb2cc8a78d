"""Drafts of tokens, and when they are worth their cost."""
