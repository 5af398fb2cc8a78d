"""Types of everything that crosses Redis, and their codec. Rolling upgrades rely on them."""
