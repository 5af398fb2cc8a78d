"""API keys in Redis, and the ledger of what tenants use."""
