"""The worker: claims jobs by adapter affinity, runs them in batches, publishes their tokens."""
