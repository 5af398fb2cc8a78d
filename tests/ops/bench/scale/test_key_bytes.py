"""Memory of Redis' keys by kind."""

from ops.bench.scale.key_bytes import KindBytes, bytes_by_kind, growth_per_job
from shared.protocol.ids import JobId
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys


async def test_keys_are_added_up_by_kind_and_the_largest_comes_first(
    redis: Redis, keys: Keys
) -> None:
    jobs = [keys.job(JobId(name)) for name in ("one", "two")]
    for key in jobs:
        await redis.hset(key, "body", "x" * 5000)  # type: ignore[misc]
    await redis.set(keys.result(JobId("one")), "y" * 100)
    found = await bytes_by_kind(redis, keys)
    assert list(found) == ["job", "res"]
    assert found["job"].num_keys == 2
    assert found["job"].num_bytes == sum([await redis.memory_usage(key) or 0 for key in jobs])


def test_growth_leaves_out_what_has_not_changed() -> None:
    before = {"cnt": KindBytes(1, 100), "job": KindBytes(1, 50)}
    after = {"cnt": KindBytes(1, 100), "job": KindBytes(3, 250), "res": KindBytes(2, 20)}
    assert growth_per_job(before, after, 2) == {"job": 100, "res": 10}
