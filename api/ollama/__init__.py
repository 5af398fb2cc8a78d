"""Ollama's API: translates its requests into OpenAI's, renders its bodies and streams."""
