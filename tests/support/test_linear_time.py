import linear_time
import pytest
from linear_time import NotLinear, assert_linear


def test_a_quadratic_check_fails_by_its_growth(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(linear_time, "MIN_MEASURED_S", 0.005)  # 15 of 50 ms take seconds

    def quadratic(value: bytes) -> None:
        for _ in range(0, len(value), 64):
            value.count(b"x")

    with pytest.raises(NotLinear, match="half of them"):
        assert_linear(quadratic, bytes, max_bytes=1 << 20, refusals=ValueError, max_s=10)


def test_a_slow_check_fails_by_its_time():
    with pytest.raises(NotLinear, match="more than"):
        assert_linear(_scan, bytes, max_bytes=4 << 20, refusals=ValueError, max_s=0.01)


def _scan(value: bytes) -> None:
    sum(value)
