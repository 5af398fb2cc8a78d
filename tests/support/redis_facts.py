"""Comparison of what Redis has with what it should have, in one round trip."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from shared.store.redis.connection import Redis


class Facts:
    """Expected values of keys. The test fails with the name of the first key that differs."""

    def __init__(self, redis: Redis) -> None:
        self._pipe = redis.pipeline(transaction=False)
        self._expected: list[tuple[str, Any, Callable[[Any], Any]]] = []

    def members(self, key: str, expected: Iterable[str]) -> None:
        self._pipe.smembers(key)
        self._expect(key, set(expected), _texts)

    def ranked(self, key: str, expected: Iterable[str]) -> None:
        """Expect the members of a sorted set, whatever their scores."""
        self._pipe.zrange(key, 0, -1)
        self._expect(key, set(expected), _texts)

    def scores(self, key: str, expected: Mapping[str, float]) -> None:
        """Expect the members of a sorted set with their scores."""
        self._pipe.zrange(key, 0, -1, withscores=True)
        self._expect(key, dict(expected), lambda raw: {name.decode(): score for name, score in raw})

    def fields(self, key: str, expected: Iterable[str]) -> None:
        self._pipe.hkeys(key)
        self._expect(key, set(expected), _texts)

    def items(self, key: str, expected: Iterable[str]) -> None:
        self._pipe.lrange(key, 0, -1)
        self._expect(key, list(expected), lambda raw: [each.decode() for each in raw])

    def texts(self, key: str, expected: Mapping[str, str]) -> None:
        """Expect texts in fields of a hash. A missing field is empty."""
        self._pipe.hmget(key, list(expected))
        self._expect(key, list(expected.values()), lambda raw: [(t or b"").decode() for t in raw])

    def numbers(self, key: str, expected: Mapping[str, float]) -> None:
        """Expect numbers in fields of a hash. A missing field is 0."""
        self._pipe.hmget(key, list(expected))
        self._expect(key, list(expected.values()), lambda raw: [float(n or 0) for n in raw])

    def expires(self, key: str, expected: bool) -> None:
        """Expect that an existing key has a lifetime, or that it has none."""
        self._pipe.pttl(key)
        self._expect(f"lifetime of {key}", expected, lambda ms: ms > 0)

    async def check(self) -> None:
        replies = await self._pipe.execute()
        for (name, expected, read), raw in zip(self._expected, replies, strict=True):
            assert read(raw) == expected, name

    def _expect(self, name: str, expected: Any, read: Callable[[Any], Any]) -> None:
        self._expected.append((name, expected, read))


def _texts(raw: Iterable[bytes]) -> set[str]:
    return {each.decode() for each in raw}
