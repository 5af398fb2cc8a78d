"""OpenAI's Responses API as chat requests, its items and its events."""
