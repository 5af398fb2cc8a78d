"""Results of the benchmarks. `python -m ops.bench` is an alias of `python -m ops.lab.bench`."""
