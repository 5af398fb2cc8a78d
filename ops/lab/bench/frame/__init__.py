"""What all benchmarks share: rounds, pairs, findings and their files."""
