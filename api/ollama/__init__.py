"""Ollama's API: translates its requests into OpenAI's, and renders its bodies and streams."""
