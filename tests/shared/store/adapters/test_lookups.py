"""Leases and refusals of lookups, and the progress of fetched adapters."""

from shared.errors import ErrorCode, JobError
from shared.store.adapters import lookups, progress
from shared.store.adapters.lookups import SourceLookups
from shared.store.adapters.progress import StagingProgress
from shared.store.adapters.staging import Phase, Staging
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

ERROR = JobError(code=ErrorCode.MODEL_NOT_FOUND, message="none", param="model")


async def test_one_of_several_callers_gets_the_lease(redis: Redis, keys: Keys) -> None:
    mine, other = (SourceLookups(redis, keys) for _ in range(2))
    assert (await mine.begin("sql")).is_mine
    state = await other.begin("sql")
    assert (state.is_mine, state.is_running, state.refusal) == (False, True, None)
    assert (await other.state("sql")).is_running
    assert (await other.begin("chat")).is_mine
    await mine.end("sql")
    assert not (await other.state("sql")).is_running
    assert (await other.begin("sql")).is_mine


async def test_a_lease_ends_unless_it_is_renewed(redis: Redis, keys: Keys) -> None:
    store = SourceLookups(redis, keys)
    await store.begin("sql")
    await redis.pexpire(keys.lookup("sql"), 1000)
    await store.renew("sql")
    assert 1000 < await redis.pttl(keys.lookup("sql")) <= lookups.LEASE_MS


async def test_a_refusal_is_remembered_for_a_while(redis: Redis, keys: Keys) -> None:
    store = SourceLookups(redis, keys)
    await store.begin("sql")
    await store.refuse("sql", ERROR)
    assert (await store.state("sql")).refusal == ERROR
    assert (await store.begin("sql")).refusal == ERROR
    assert 0 < await redis.pttl(keys.lookup("sql")) <= lookups.REFUSED_MS


async def test_progress_is_seen_until_it_ends(redis: Redis, keys: Keys) -> None:
    store = StagingProgress(redis, keys)
    assert await store.of("sql") is None
    staging = Staging(source="s3://b/sql", phase=Phase.UNPACKING, num_bytes=5, total=None)
    await store.report("sql", staging)
    assert await store.of("sql") == staging
    assert 0 < await redis.pttl(keys.staging("sql")) <= progress.TTL_MS
    await store.end("sql")
    assert await store.of("sql") is None
