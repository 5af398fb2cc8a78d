"""Where an adapter comes from, whether that is allowed, and what its files say."""
