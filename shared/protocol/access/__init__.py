"""Rights of API keys, and the use of their limits. `key_limits.lua` enforces the limits."""
