"""`python -m ops.bench`, which runs the benchmarks in `ops/lab/bench/`, and their results."""
