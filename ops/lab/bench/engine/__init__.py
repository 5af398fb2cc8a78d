"""Parts of benchmarks that run an engine without a server. Most run in a separate process."""
