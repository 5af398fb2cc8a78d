"""Types of all messages and records in Redis. `codec.py` says how these types may change."""
