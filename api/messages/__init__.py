"""Anthropic's Messages API: translates its requests into chat requests, and renders its events."""
