"""Web pages: the console, the guide and the API reference."""
