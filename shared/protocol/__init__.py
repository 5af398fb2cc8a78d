"""Types of all messages and records in Redis, and `codec.py`, which has the rules for changes."""
