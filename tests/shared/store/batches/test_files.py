"""Records of files, and what they are charged to their tenants."""

import time
from dataclasses import replace

import pytest

from shared.errors import ErrorCode, JobFailed
from shared.protocol.access.rights import Access
from shared.protocol.files import Purpose
from shared.protocol.ids import FileId
from shared.store.batches.files import MIB, FileQuota, StoredFiles, new_file_id
from shared.store.batches.records import StoredFile
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

RED = Access(tenant="red", scopes=frozenset())
QUOTA = FileQuota(max_files=3, max_bytes=100)


@pytest.fixture
def files(redis: Redis, keys: Keys) -> StoredFiles:
    return StoredFiles(redis, keys)


def make_file(
    tenant: str = "red", *, purpose: Purpose = Purpose.BATCH, age_s: int = 0, num_bytes: int = 12
) -> StoredFile:
    now = int(time.time()) - age_s
    return StoredFile(
        id=new_file_id(),
        tenant=tenant,
        name="in.jsonl",
        purpose=purpose,
        num_bytes=num_bytes,
        created_s=now,
        expires_s=now + 1000,
    )


async def reserve(
    files: StoredFiles, file: StoredFile, num_bytes: int = 0, *, until_s: float | None = None
) -> None:
    until_s = time.time() + 60 if until_s is None else until_s
    await files.reserve(file.id, file.tenant, num_bytes, quota=QUOTA, until_s=until_s)


async def account(redis: Redis, keys: Keys, tenant: str = "red") -> tuple[int, int]:
    """Return the number and the bytes of files that the tenant is charged with."""
    found = await redis.hgetall(keys.stored(tenant))  # type: ignore[misc]
    return int(found.get(b"files", 0)), int(found.get(b"bytes", 0))


async def removed(files: StoredFiles, file_id: FileId) -> None:
    await files.delete(file_id)
    await files.forget(file_id)


async def test_files_are_listed_by_tenant_and_purpose(files: StoredFiles) -> None:
    old, new = make_file(age_s=9), make_file(purpose=Purpose.BATCH_OUTPUT)
    await files.add(old, new, make_file("blue"))
    assert await files.get(old.id) == old
    page = await files.page(RED, limit=5, after=None, purpose=None)
    assert page is not None
    assert page.items == [new, old]
    page = await files.page(RED, limit=5, after=None, purpose=Purpose.BATCH)
    assert page is not None
    assert page.items == [old]


async def test_a_list_by_purpose_reads_only_files_of_the_purpose(
    files: StoredFiles, redis: Redis
) -> None:
    await files.add(*[make_file(purpose=Purpose.BATCH_OUTPUT) for _ in range(50)])
    before = await num_calls(redis)
    page = await files.page(RED, limit=5, after=None, purpose=Purpose.BATCH)
    assert page is not None
    assert page.items == []
    assert await num_calls(redis) == before


async def num_calls(redis: Redis) -> int:
    """Return how often clients and scripts have read a hash as a whole."""
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_hgetall", {}).get("calls", 0))


async def test_the_content_of_a_deleted_or_expired_file_is_due(files: StoredFiles) -> None:
    deleted, kept = make_file(), make_file()
    await files.add(deleted, kept)
    now = time.time()
    assert await files.due(now, limit=5) == []
    await files.delete(deleted.id)
    assert await files.get(deleted.id) is None
    assert await files.due(now, limit=5) == [deleted.id]
    await files.forget(deleted.id)
    assert await files.due(now + 1001, limit=5) == [kept.id]


async def test_an_expired_file_is_not_found(files: StoredFiles) -> None:
    old = make_file(age_s=1500)
    await files.add(old)
    assert await files.get(old.id) is None
    page = await files.page(RED, limit=5, after=None, purpose=None)
    assert page is not None
    assert page.items == []
    assert await files.due(time.time(), limit=5) == [old.id]


async def test_a_file_that_is_kept_is_not_forgotten(files: StoredFiles) -> None:
    file = make_file()
    await files.add(file)
    await files.forget(file.id)
    assert await files.get(file.id) == file


async def test_uploads_beyond_the_quota_are_refused_until_something_is_deleted(
    files: StoredFiles, redis: Redis, keys: Keys
) -> None:
    first, second = make_file(num_bytes=60), make_file()
    await reserve(files, first, 60)
    await files.complete(first)
    await reserve(files, second, 40)
    with pytest.raises(JobFailed, match=r"delete files .* --max-files-tenant-mb") as caught:
        await reserve(files, second, 41)
    assert caught.value.error.code is ErrorCode.QUOTA_EXCEEDED
    assert await account(redis, keys) == (2, 100)
    await reserve(files, replace(second, id=new_file_id(), tenant="blue"), 100)
    await files.delete(first.id)
    with pytest.raises(JobFailed):  # its content still exists
        await reserve(files, second, 41)
    await files.forget(first.id)
    await reserve(files, second, 41)


async def test_the_number_of_files_is_limited(files: StoredFiles) -> None:
    uploads = [make_file() for _ in range(4)]
    for each in uploads[:3]:
        await reserve(files, each, 1)
    with pytest.raises(JobFailed, match=r"there are 3 files .* --max-files-tenant$"):
        await reserve(files, uploads[3], 1)
    await reserve(files, uploads[0], 2)


async def test_output_files_count_but_are_never_refused(
    files: StoredFiles, redis: Redis, keys: Keys
) -> None:
    output = make_file(purpose=Purpose.BATCH_OUTPUT, num_bytes=5 * MIB)
    await files.add(output)
    await files.add(output)
    assert await account(redis, keys) == (1, 5 * MIB)
    with pytest.raises(JobFailed, match="they have 5 MiB"):
        await reserve(files, make_file(), 1)


async def test_an_upload_that_was_given_up_cannot_be_completed(
    files: StoredFiles, redis: Redis, keys: Keys
) -> None:
    file = make_file()
    await reserve(files, file, 9, until_s=time.time() - 1)
    assert await files.due(time.time(), limit=5) == [file.id]
    await files.delete(file.id)
    for call in (files.complete(file), reserve(files, file, 9)):
        with pytest.raises(JobFailed, match="given up"):
            await call
    await files.forget(file.id)
    with pytest.raises(JobFailed, match="given up"):
        await files.complete(file)
    assert await redis.keys(f"{keys.prefix}*") == []


async def test_nothing_is_left_of_deleted_files(
    files: StoredFiles, redis: Redis, keys: Keys
) -> None:
    mine, other = make_file(), make_file(purpose=Purpose.BATCH_OUTPUT)
    await files.add(mine, other)
    for each in (mine, other, mine):
        await removed(files, each.id)
    assert await redis.keys(f"{keys.prefix}*") == []


async def test_a_content_that_cannot_be_deleted_waits(files: StoredFiles) -> None:
    file, now = make_file(), time.time()
    await files.add(file)
    await files.delete(file.id)
    await files.delay(file.id, now + 60)
    assert await files.due(now, limit=5) == []
    assert await files.due(now + 61, limit=5) == [file.id]
