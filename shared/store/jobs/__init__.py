"""The queue: jobs, claims, token streams and dead letters. Its rules are in `lua/jobs/`."""
