"""Types of all messages and records in Redis, and their codec. Rolling upgrades rely on them."""
