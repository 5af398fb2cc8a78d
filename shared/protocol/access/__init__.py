"""Types of API keys: their rights, and the use of their limits."""
