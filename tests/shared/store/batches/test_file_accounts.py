"""What tenants are charged with, over all orders of uploads, deletions, expiries and crashes."""

import asyncio
from collections import defaultdict

from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import booleans, data, integers, sampled_from

from ops.local.embedded_redis import EmbeddedRedis, start_redis
from shared.errors import JobFailed
from shared.protocol.files import Purpose
from shared.protocol.ids import FileId
from shared.store.batches.files import FileQuota, StoredFiles
from shared.store.batches.records import StoredFile
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys

QUOTA = FileQuota(max_files=4, max_bytes=100)
TENANTS = sampled_from(["red", "blue"])
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
        self.loop = asyncio.new_event_loop()
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
        self.loop.close()

    def run(self, call):  # type: ignore[no-untyped-def]
        return self.loop.run_until_complete(call)

    def new_id(self) -> FileId:
        self.num_files += 1
        return FileId(f"file-{self.num_files:04}")

    def file(self, file_id: FileId, size: int, purpose: Purpose = Purpose.BATCH) -> StoredFile:
        now = int(self.now_s)
        return StoredFile(
            id=file_id,
            tenant=self.tenants[file_id],
            name="x",
            purpose=purpose,
            num_bytes=size,
            created_s=now,
            expires_s=now + LIFETIME_S,
        )

    def used(self, tenant: str) -> tuple[int, int]:
        sizes = [size for id_, size in self.charged.items() if self.tenants[id_] == tenant]
        return len(sizes), sum(sizes)

    @rule(tenant=TENANTS, size=SIZES)
    def begin(self, tenant: str, size: int) -> None:
        self.reserve(self.new_id(), tenant, size)

    @precondition(lambda self: self.uploads)
    @rule(data=data(), size=SIZES)
    def grow(self, data, size: int) -> None:  # type: ignore[no-untyped-def]
        file_id = data.draw(sampled_from(sorted(self.uploads)))
        self.reserve(file_id, self.tenants[file_id], size)

    def reserve(self, file_id: FileId, tenant: str, size: int) -> None:
        number, used = self.used(tenant)
        before = self.charged.get(file_id)
        more = max(0, size - (before or 0))
        fits = used + more <= QUOTA.max_bytes or not more
        fits = fits and (before is not None or number < QUOTA.max_files)
        until_s = self.now_s + UPLOAD_S
        try:
            self.run(self.files.reserve(file_id, tenant, size, quota=QUOTA, until_s=until_s))
        except JobFailed:
            assert not fits
            return
        assert fits
        self.tenants[file_id] = tenant
        self.charged[file_id] = (before or 0) + more
        self.due_s[file_id] = until_s
        self.uploads.add(file_id)

    @precondition(lambda self: self.uploads)
    @rule(data=data(), size=SIZES, is_repeated=booleans())
    def complete(self, data, size: int, is_repeated: bool) -> None:  # type: ignore[no-untyped-def]
        file_id = data.draw(sampled_from(sorted(self.uploads)))
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
    @rule(data=data(), dies_early=booleans())
    def remove(self, data, dies_early: bool) -> None:  # type: ignore[no-untyped-def]
        """Abort an upload or delete a file. The process may die before the content is gone."""
        file_id = data.draw(sampled_from(sorted(self.charged)))
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
    def accounts_are_the_sums_of_what_exists(self) -> None:
        found: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for tenant in ("red", "blue"):
            raw = self.run(self.redis.hgetall(KEYS.stored(tenant)))
            found[tenant] = int(raw.get(b"files", 0)), int(raw.get(b"bytes", 0))
            assert found[tenant] == self.used(tenant)

    @invariant()
    def everything_that_exists_will_be_deleted(self) -> None:
        raw = self.run(self.redis.zrange(KEYS.files, 0, -1))
        assert {each.decode() for each in raw} == self.charged.keys()


def test_accounts_are_right_in_every_order_of_calls() -> None:
    Accounts.server = start_redis(None)
    try:
        run_state_machine_as_test(
            Accounts, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
        )
    finally:
        Accounts.server.stop()
