"""Files of adapters that clients send, lookups of sources, and the progress of fetched adapters."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from adapter_versions import BASE, version_of
from queue_support import eventually

from ops.local.embedded_redis import EmbeddedRedis
from shared.errors import ErrorCode, JobError, JobFailed
from shared.protocol.adapter_files import upload_source
from shared.protocol.adapters import Adapter
from shared.protocol.ids import AdapterVersion, UploadId
from shared.store.adapters import fetch_progress, source_lookups
from shared.store.adapters.fetch_progress import Phase, Staging, StagingProgress
from shared.store.adapters.registry import Registry
from shared.store.adapters.source_lookups import SourceLookups
from shared.store.adapters.uploads import CONFIG, PIECE_BYTES, UploadGone, Uploads
from shared.store.audit.auditor import Auditor
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

ONE, TWO = UploadId("1" * 32), UploadId("2" * 32)
TTL_MS = 60_000


def made_from(upload: UploadId, digest: str) -> Adapter:
    return version_of(digest, source=upload_source(upload))


@pytest.fixture
def uploads(redis: Redis, keys: Keys) -> Uploads:
    return Uploads(redis, keys)


@pytest.fixture(autouse=True)
async def _without_strays(redis: Redis, keys: Keys) -> AsyncIterator[None]:
    yield
    assert (await Auditor(redis, keys).audit(settle_s=0)).strays == ()


async def send(uploads: Uploads, upload: UploadId, *pieces: bytes) -> None:
    for number, piece in enumerate(pieces):
        await uploads.append(upload, str(number), piece, tenant="red", num_left=0, ttl_ms=TTL_MS)
    await uploads.append(upload, CONFIG, b"{}", tenant="red", num_left=0, ttl_ms=TTL_MS)


async def read(uploads: Uploads, upload: UploadId) -> bytes:
    return b"".join([piece async for piece in uploads.pieces(upload)])


async def is_gone(redis: Redis, keys: Keys, upload: UploadId) -> bool:
    return not await redis.exists(keys.upload(upload))


async def test_pieces_are_read_in_order_and_expire_until_a_version_is_registered(
    uploads: Uploads, registry: Registry, redis: Redis, keys: Keys
) -> None:
    await send(uploads, ONE, b"12", b"345")
    assert await read(uploads, ONE) == b"12345"
    assert await uploads.config(ONE) == b"{}"
    assert 0 < await redis.pttl(keys.upload(ONE)) <= TTL_MS
    await registry.load_adapter(made_from(ONE, "1"), replace=True)
    assert await redis.pttl(keys.upload(ONE)) == -1
    await uploads.discard(ONE)
    with pytest.raises(UploadGone):
        await read(uploads, ONE)


async def test_a_version_of_an_expired_upload_is_not_registered(
    uploads: Uploads, registry: Registry
) -> None:
    with pytest.raises(JobFailed, match="send it again") as refusal:
        await registry.load_adapter(made_from(ONE, "1"), replace=True)
    assert refusal.value.error.code is ErrorCode.UNAVAILABLE
    assert await registry.adapter("a") is None


async def test_a_version_has_one_upload_however_often_it_is_sent(
    uploads: Uploads, registry: Registry, redis: Redis, keys: Keys
) -> None:
    for upload in (ONE, TWO):
        await send(uploads, upload, b"12")
        await registry.load_adapter(made_from(upload, "1"), replace=True)
    adapter = await registry.adapter("a")
    assert adapter
    assert adapter.source == upload_source(ONE)
    assert await is_gone(redis, keys, TWO)
    await registry.load_adapter(replace(adapter, source="/folder"), replace=True)
    assert (await registry.adapter("a")) == adapter  # the folder may change, the upload can't


async def test_the_upload_of_a_replaced_version_is_deleted_with_its_last_job_reference(
    uploads: Uploads, registry: Registry, redis: Redis, keys: Keys
) -> None:
    for number, upload in enumerate((ONE, TWO)):
        await send(uploads, upload, b"12")
        await registry.load_adapter(made_from(upload, str(number)), replace=True, keep_versions=0)
    assert await registry.forget_unused() == []  # a request may be admitted but not yet enqueued
    assert not await is_gone(redis, keys, ONE)
    await redis.zadd(keys.retired, {"a@0": 0})
    assert await eventually(registry.forget_unused) == ["a@0"]
    assert await is_gone(redis, keys, ONE)
    assert not await is_gone(redis, keys, TWO)


async def test_another_base_model_deletes_uploads(
    uploads: Uploads, registry: Registry, redis: Redis, keys: Keys
) -> None:
    await send(uploads, ONE, b"12")
    await registry.load_adapter(made_from(ONE, "1"), replace=True)
    await registry.set_base(replace(BASE, version=AdapterVersion("base@2")))
    assert await is_gone(redis, keys, ONE)


@pytest.fixture
async def small(open_client: Callable[[str], Redis], own_server: EmbeddedRedis) -> Redis:
    client = open_client(own_server.url)
    await client.config_set("maxmemory", "40mb")
    return client


async def test_a_tenant_uploads_at_most_half_of_the_memory(small: Redis, keys: Keys) -> None:
    uploads, piece = Uploads(small, keys), bytes(PIECE_BYTES - 24_576)

    async def fill(tenant: str, upload: str, num_pieces: int) -> None:
        for number in range(num_pieces):
            await uploads.append(
                UploadId(upload), str(number), piece, tenant=tenant, num_left=0, ttl_ms=TTL_MS
            )

    await fill("red", "1", 10)
    await fill("red", "2", 10)
    with pytest.raises(JobFailed, match="half of Redis' memory") as refusal:
        await fill("red", "3", 1)
    assert refusal.value.error.code is ErrorCode.QUOTA_EXCEEDED
    await fill("blue", "4", 1)
    await uploads.discard(UploadId("1"))
    await fill("red", "3", 1)
    await small.delete(keys.upload(UploadId("2")))  # its front end has died, and it has expired
    await fill("red", "5", 18)


async def test_a_discarded_upload_is_no_longer_charged(
    uploads: Uploads, registry: Registry, redis: Redis, keys: Keys
) -> None:
    await send(uploads, ONE, b"12")
    await send(uploads, TWO, b"345")
    assert await redis.zrange(keys.uploads_of("red"), 0, -1, withscores=True) == [
        (ONE.encode(), 4),
        (TWO.encode(), 5),
    ]
    await registry.load_adapter(made_from(ONE, "1"), replace=True)
    await registry.set_base(replace(BASE, version=AdapterVersion("base@2")))
    await uploads.discard(TWO)
    assert not await redis.exists(keys.uploads_of("red"))


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
    assert 1000 < await redis.pttl(keys.lookup("sql")) <= source_lookups.LEASE_MS


async def test_a_refusal_is_remembered_for_a_while(redis: Redis, keys: Keys) -> None:
    store = SourceLookups(redis, keys)
    await store.begin("sql")
    await store.refuse("sql", ERROR)
    assert (await store.state("sql")).refusal == ERROR
    assert (await store.begin("sql")).refusal == ERROR
    assert 0 < await redis.pttl(keys.lookup("sql")) <= source_lookups.REFUSED_MS


async def test_progress_is_seen_until_it_ends(redis: Redis, keys: Keys) -> None:
    store = StagingProgress(redis, keys)
    assert await store.of("sql") is None
    staging = Staging(source="s3://b/sql", phase=Phase.UNPACKING, num_bytes=5, total=None)
    await store.report("sql", staging)
    assert await store.of("sql") == staging
    assert 0 < await redis.pttl(keys.staging("sql")) <= fetch_progress.TTL_MS
    await store.end("sql")
    assert await store.of("sql") is None
