"""Anthropic's Messages API as chat requests, and its events."""
