"""Access to batches on behalf of the tenants that own them."""
