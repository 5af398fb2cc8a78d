"""Anthropic's Messages API: translates its requests into chat requests, renders its events."""
