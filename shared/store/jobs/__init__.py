"""The queue: jobs, claims, token streams, handovers and dead letters."""
