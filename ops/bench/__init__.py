"""Results of the benchmarks, and `python -m ops.bench`, an alias of `python -m ops.lab.bench`."""
