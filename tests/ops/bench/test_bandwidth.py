from ops.bench.bandwidth import measure_bandwidth


def test_the_bandwidth_is_in_bytes_per_second() -> None:
    assert 1e8 < measure_bandwidth(num_bytes=1 << 26, passes=3) < 1e13
