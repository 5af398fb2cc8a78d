"""Code that all benchmarks share: rounds, pairs, findings and their files."""
