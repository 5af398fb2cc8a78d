"""An engine without a model, for tests. It outputs predictable texts at a configured pace."""
