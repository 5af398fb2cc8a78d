"""What every store uses: connections, names of keys, scripts, retries, durability."""
