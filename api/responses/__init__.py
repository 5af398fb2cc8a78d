"""OpenAI's Responses API: translates requests into chat requests, renders items and events."""
