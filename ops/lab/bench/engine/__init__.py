"""Parts of benchmarks that drive an engine in their own process."""
