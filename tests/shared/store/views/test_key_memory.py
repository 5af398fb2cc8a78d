import pytest

from shared.protocol.ids import AdapterVersion, ApiId, JobId
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from shared.store.views.key_memory import NUM_SAMPLED, OTHER, estimate_key_bytes, key_kinds
from shared.store.views.pool_views import PoolViews

SIZE = 4000
"""Size of a value that dominates the size of its key."""


def test_every_kind_of_key_is_known() -> None:
    kinds = key_kinds()
    assert [kinds[kind] for kind in ("job", "res", "tok", "out", "q", "version")] == [False] * 6
    assert [kinds[kind] for kind in ("dead", "cnt", "ready", "base")] == [True] * 4


@pytest.fixture
async def own_redis(own_server, open_client) -> Redis:
    """Client of a database that has only the test's keys."""
    opened: Redis = open_client(own_server.url)
    return opened


async def test_an_empty_database_has_no_bytes(own_redis: Redis, keys: Keys) -> None:
    assert set((await estimate_key_bytes(own_redis, keys)).values()) == {0}


async def test_kinds_are_estimated_by_their_share_of_a_sample(own_redis: Redis, keys: Keys) -> None:
    pipe = own_redis.pipeline(transaction=False)
    for number in range(5 * NUM_SAMPLED):
        pipe.hset(keys.job(JobId(f"{number:032x}")), mapping={"body": "x" * SIZE, "try": 1})
        pipe.set(keys.result(JobId(f"{number:032x}")), "x" * SIZE)
        pipe.set(Keys("another-pool").result(JobId(f"{number:032x}")), "x" * SIZE)
        pipe.set(f"{keys.prefix}unheard-of:{number}", "x" * SIZE)
    await pipe.execute()
    found = await estimate_key_bytes(own_redis, keys)
    # Each kind is a quarter of the sample. Half of that is about six standard deviations.
    for kind in ("job", "res", OTHER):
        assert found[kind] / (5 * NUM_SAMPLED * SIZE) == pytest.approx(1.2, rel=0.6)
    assert {kind for kind, size in found.items() if size} == {"job", "res", OTHER}


async def test_kinds_of_one_key_are_measured(own_redis: Redis, keys: Keys) -> None:
    await own_redis.xadd(keys.dead, {"body": "x" * SIZE})
    await own_redis.sadd(keys.adapters, "x" * SIZE)
    for number in range(3 * NUM_SAMPLED):
        await own_redis.set(keys.result(JobId(f"{number:032x}")), "x")
    found = await estimate_key_bytes(own_redis, keys)
    assert found["dead"] == await own_redis.memory_usage(keys.dead, samples=0)
    assert found["adapters"] == await own_redis.memory_usage(keys.adapters, samples=0)


async def test_the_bytes_of_a_kind_are_those_of_its_large_keys(
    own_redis: Redis, keys: Keys
) -> None:
    await own_redis.xadd(keys.replies(ApiId("api")), {"e": "x" * SIZE})
    await own_redis.zadd(keys.queue(AdapterVersion("a@1")), {"0" * 32: 1})
    found = await estimate_key_bytes(own_redis, keys)
    assert found["out"] > SIZE / 2 > found["q"] > 0


async def test_a_server_that_forbids_sampling_reports_no_bytes_by_kind(
    own_server, open_client
) -> None:
    redis = open_client(own_server.url)
    await redis.execute_command("ACL", "SETUSER", "default", "-randomkey")
    memory = await PoolViews(redis, Keys("main")).memory()
    assert memory.used > 0
    assert memory.by_kind == {}
