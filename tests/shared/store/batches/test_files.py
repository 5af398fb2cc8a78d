"""Records of files, and what they are charged to their tenants in every order of calls."""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from batch_records import make_file
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import booleans, integers, sampled_from
from redis_facts import Facts

from ops.local.embedded_redis import EmbeddedRedis, start_redis
from shared.errors import ErrorCode, JobFailed
from shared.protocol.access.rights import Access
from shared.protocol.ids import FileId
from shared.store.batches.files import FileQuota, StoredFiles, new_file_id
from shared.store.batches.records import Purpose, StoredFile
from shared.store.redis.connection import Redis, connect
from shared.store.redis.keys import Keys

RED = Access(tenant="red", scopes=frozenset())
QUOTA = FileQuota(max_files=3, max_bytes=100)


@pytest.fixture
def files(redis: Redis, keys: Keys) -> StoredFiles:
    return StoredFiles(redis, keys)


async def reserve(
    files: StoredFiles, file: StoredFile, num_bytes: int = 0, *, until_s: float | None = None
) -> None:
    until_s = time.time() + 60 if until_s is None else until_s
    await files.reserve(file.id, file.tenant, num_bytes, quota=QUOTA, until_s=until_s)


async def listed(files: StoredFiles, purpose: Purpose | None = None) -> Sequence[StoredFile]:
    page = await files.page(RED, limit=5, after=None, purpose=purpose)
    assert page is not None
    return page.items


async def account(redis: Redis, keys: Keys, tenant: str = "red") -> tuple[int, int]:
    found = await redis.hgetall(keys.stored(tenant))  # type: ignore[misc]
    return int(found.get(b"files", 0)), int(found.get(b"bytes", 0))


async def removed(files: StoredFiles, file_id: FileId) -> None:
    await files.delete(file_id)
    await files.forget(file_id)


async def test_files_are_listed_by_tenant_and_purpose(files: StoredFiles) -> None:
    old, new = make_file(age_s=9), make_file(purpose=Purpose.BATCH_OUTPUT)
    await files.add(old, new, make_file(tenant="blue"))
    assert await files.get(old.id) == old
    assert await listed(files) == [new, old]
    assert await listed(files, Purpose.BATCH) == [old]


async def test_a_list_by_purpose_reads_only_files_of_the_purpose(
    files: StoredFiles, redis: Redis
) -> None:
    await files.add(*[make_file(purpose=Purpose.BATCH_OUTPUT) for _ in range(50)])
    before = await num_calls(redis)
    assert await listed(files, Purpose.BATCH) == []
    assert await num_calls(redis) == before


async def num_calls(redis: Redis) -> int:
    """Return how often clients and scripts have read a hash as a whole."""
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_hgetall", {}).get("calls", 0))


async def test_an_expired_file_is_not_found(files: StoredFiles) -> None:
    old = make_file(age_s=1500)
    await files.add(old)
    assert await files.get(old.id) is None
    assert await listed(files) == []
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


SMALL_QUOTA = FileQuota(max_files=4, max_bytes=100)
T = TypeVar("T")
TENANTS = sampled_from(["red", "blue"])
PICKS = integers(0, 20)
"""Which of the present files a call is for."""
SIZES = integers(0, 60)
LIFETIME_S = 1000
UPLOAD_S = 100
KEYS = Keys("accounts")


class Accounts(RuleBasedStateMachine):
    """Processes that use files, and a model of what the file store has.

    A process that dies is one that makes no further call.
    """

    server: EmbeddedRedis

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = connect(self.server.url)
        self.run(self.redis.flushall())
        self.files = StoredFiles(self.redis, KEYS)
        self.now_s = 2e9
        self.num_files = 0
        self.charged: dict[FileId, int] = {}
        self.tenants: dict[FileId, str] = {}
        self.uploads: set[FileId] = set()
        self.due_s: dict[FileId, float] = {}

    def teardown(self) -> None:
        self.run(self.redis.aclose())
        self.runner.close()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def new_id(self) -> FileId:
        self.num_files += 1
        return FileId(f"file-{self.num_files:04}")

    def file(self, file_id: FileId, size: int, purpose: Purpose = Purpose.BATCH) -> StoredFile:
        expires_s, tenant = int(self.now_s) + LIFETIME_S, self.tenants[file_id]
        return make_file(
            id=file_id, tenant=tenant, purpose=purpose, num_bytes=size, expires_s=expires_s
        )

    def used(self, tenant: str) -> tuple[int, int]:
        sizes = [size for id_, size in self.charged.items() if self.tenants[id_] == tenant]
        return len(sizes), sum(sizes)

    @rule(tenant=TENANTS, size=SIZES)
    def begin(self, tenant: str, size: int) -> None:
        self.reserve(self.new_id(), tenant, size)

    @precondition(lambda self: self.uploads)
    @rule(pick=PICKS, size=SIZES)
    def grow(self, pick: int, size: int) -> None:
        file_id = picked(self.uploads, pick)
        self.reserve(file_id, self.tenants[file_id], size)

    def reserve(self, file_id: FileId, tenant: str, size: int) -> None:
        number, used = self.used(tenant)
        before = self.charged.get(file_id)
        more = max(0, size - (before or 0))
        fits = used + more <= SMALL_QUOTA.max_bytes or not more
        fits = fits and (before is not None or number < SMALL_QUOTA.max_files)
        until_s = self.now_s + UPLOAD_S
        try:
            self.run(self.files.reserve(file_id, tenant, size, quota=SMALL_QUOTA, until_s=until_s))
        except JobFailed:
            assert not fits
            return
        assert fits
        self.tenants[file_id] = tenant
        self.charged[file_id] = (before or 0) + more
        self.due_s[file_id] = until_s
        self.uploads.add(file_id)

    @precondition(lambda self: self.uploads)
    @rule(pick=PICKS, size=SIZES, is_repeated=booleans())
    def complete(self, pick: int, size: int, is_repeated: bool) -> None:
        file_id = picked(self.uploads, pick)
        for _ in range(1 + is_repeated):
            self.run(self.files.complete(self.file(file_id, size)))
        self.uploads.remove(file_id)
        self.charged[file_id] = size
        self.due_s[file_id] = int(self.now_s) + LIFETIME_S

    @rule(tenant=TENANTS, size=SIZES, is_repeated=booleans())
    def add_output(self, tenant: str, size: int, is_repeated: bool) -> None:
        file_id = self.new_id()
        self.tenants[file_id] = tenant
        for _ in range(1 + is_repeated):
            self.run(self.files.add(self.file(file_id, size, Purpose.BATCH_OUTPUT)))
        self.charged[file_id] = size
        self.due_s[file_id] = int(self.now_s) + LIFETIME_S

    @precondition(lambda self: self.charged)
    @rule(pick=PICKS, dies_early=booleans())
    def remove(self, pick: int, dies_early: bool) -> None:
        """Abort an upload or delete a file. The process may die before the content is gone."""
        file_id = picked(self.charged, pick)
        self.run(self.files.delete(file_id))
        self.uploads.discard(file_id)
        self.due_s[file_id] = 0
        if not dies_early:
            self.forget(file_id)

    @rule(passed_s=integers(0, LIFETIME_S))
    def wait(self, passed_s: int) -> None:
        self.now_s += passed_s

    @rule(limit=integers(1, 3))
    def sweep(self, limit: int) -> None:
        due = self.run(self.files.due(self.now_s, limit=limit))
        expected = [id_ for id_, due_s in self.due_s.items() if due_s <= self.now_s]
        assert len(due) == min(limit, len(expected))
        for file_id in due:
            assert file_id in expected
            self.run(self.files.delete(file_id))
            self.forget(file_id)

    def forget(self, file_id: FileId) -> None:
        self.run(self.files.forget(file_id))
        self.uploads.discard(file_id)
        del self.charged[file_id], self.due_s[file_id]

    @invariant()
    def accounts_are_the_sums_of_what_exists_and_all_of_it_will_be_deleted(self) -> None:
        self.run(self.check())

    async def check(self) -> None:
        facts = Facts(self.redis)
        for tenant in ("red", "blue"):
            files, num_bytes = self.used(tenant)
            facts.numbers(KEYS.stored(tenant), {"files": files, "bytes": num_bytes})
        facts.ranked(KEYS.files, self.charged)
        await facts.check()


def picked(ids: Iterable[FileId], pick: int) -> FileId:
    known = sorted(ids)
    return known[pick % len(known)]


def test_accounts_are_right_in_every_order_of_calls() -> None:
    Accounts.server = start_redis(None)
    try:
        run_state_machine_as_test(
            Accounts, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
        )
    finally:
        Accounts.server.stop()
