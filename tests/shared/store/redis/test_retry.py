import pytest
import structlog

from shared.errors import RedisUnavailable
from shared.store.redis import retry
from shared.store.redis.retry import retry_until_available


async def test_a_call_is_repeated_until_redis_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.001)
    failures = [RedisUnavailable("first"), RedisUnavailable("second")]

    async def call() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    with structlog.testing.capture_logs() as lines:
        assert await retry_until_available(call) == "done"
    assert [line["error"] for line in lines] == ["first", "second"]


async def test_other_errors_are_raised() -> None:
    async def call() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await retry_until_available(call)
