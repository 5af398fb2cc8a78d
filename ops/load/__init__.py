"""The load generator of `lorikeet bench` and of the benchmarks in `ops/lab/bench`."""
