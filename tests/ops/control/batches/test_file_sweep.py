"""What is left in the file store of files, batches and processes that have died."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from batch_pool import batch_pool
from batch_records import make_batch, make_file
from queue_support import eventually

from api.access.authenticator import ANONYMOUS
from api.files.file_store import FileStore
from api.files.own_files import content_name
from ops.control.batches.file_sweep import MAX_RUN_S, PARTIAL_S, RETRY_S, FileSweep
from ops.control.batches.results import ANSWERS, Results
from shared.protocol.ids import FileId
from shared.store.batches.batches import Batches
from shared.store.batches.files import FileQuota, StoredFiles, new_file_id
from shared.store.batches.records import BatchStatus, StoredFile
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys

KEEP_S = 1000
OLD_S = KEEP_S + MAX_RUN_S


@pytest.fixture
def files(redis: Redis, keys: Keys) -> StoredFiles:
    return StoredFiles(redis, keys)


@pytest.fixture
def batches(redis: Redis, keys: Keys) -> Batches:
    return Batches(redis, keys)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(str(tmp_path / "store"))


@pytest.fixture
def sweep(store: FileStore, files: StoredFiles, batches: Batches) -> FileSweep:
    return FileSweep(store, files, batches, keep_s=KEEP_S)


async def piece() -> AsyncIterator[bytes]:
    yield b"x" * 10


async def stored(store: FileStore, files: StoredFiles) -> StoredFile:
    file = make_file(keep_s=KEEP_S)
    await store.write(content_name(file.id), piece())
    await files.add(file)
    return file


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


async def test_deleted_and_expired_files_are_removed(
    store: FileStore, files: StoredFiles, sweep: FileSweep, tmp_path: Path
) -> None:
    kept, deleted = await stored(store, files), await stored(store, files)
    await files.delete(deleted.id)
    await sweep.run(time.time())
    assert names(tmp_path) == {kept.id}
    await sweep.run(time.time() + KEEP_S + 1)
    assert names(tmp_path) == set()


async def test_a_file_that_cannot_be_deleted_stops_no_other(
    store: FileStore, files: StoredFiles, sweep: FileSweep, tmp_path: Path
) -> None:
    bad = make_file(keep_s=KEEP_S, id=FileId("file-" + "x" * 300))
    await files.add(bad)
    others = [await stored(store, files) for _ in range(3)]
    now = time.time()
    for each in (bad, *others):
        await files.delete(each.id)
    await sweep.run(now)
    assert names(tmp_path) == set()
    assert await files.due(now, limit=5) == []
    assert await files.due(now + RETRY_S, limit=5) == [bad.id]


async def test_the_parts_of_an_ended_batch_are_removed_later(
    store: FileStore, batches: Batches, sweep: FileSweep, tmp_path: Path
) -> None:
    now, batch = time.time(), make_batch()
    await batches.add(batch, keep_s=KEEP_S, max_tenant=1)
    turn = await batches.take_turn()
    assert turn is not None
    part = await Results(store, batch.id).write_part(ANSWERS, [b"x"])
    await sweep.run(now + 100)
    await batches.end(batch.id, turn.runner, BatchStatus.FAILED, keep_s=KEEP_S, announces=False)
    await sweep.run(now)
    assert names(tmp_path) == {part.rpartition("/")[2]}
    await sweep.run(now + 100)
    assert names(tmp_path) == set()
    assert await batches.with_parts(now + 100, limit=1) == []


async def test_objects_without_a_record_are_removed_once_none_can_be_in_use(
    store: FileStore, files: StoredFiles, sweep: FileSweep, tmp_path: Path
) -> None:
    known, now = await stored(store, files), time.time()
    for name in ("files/file-young", "files/file-old", "work/batch_old/1-answers"):
        await store.write(name, piece())
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file() and path.name != "file-young":
            os.utime(path, (now - OLD_S - 1, now - OLD_S - 1))
    await sweep.delete_leftovers(now)
    assert names(tmp_path) == {known.id, "file-young"}


async def test_what_a_killed_writer_has_left_is_removed_after_an_hour(
    sweep: FileSweep, tmp_path: Path
) -> None:
    folder, now = tmp_path / "store" / "files", time.time()
    folder.mkdir()
    (folder / "file-1.partial-abcd").write_bytes(b"x")
    await sweep.delete_leftovers(now + PARTIAL_S - 60)
    assert names(tmp_path) == {"file-1.partial-abcd"}
    await sweep.delete_leftovers(now + PARTIAL_S + 60)
    assert names(tmp_path) == set()


@pytest.mark.slow
async def test_nothing_stays_of_an_upload_whose_front_end_was_killed(
    redis_url: str, pool: str, tmp_path: Path, redis: Redis, keys: Keys, files: StoredFiles
) -> None:
    with batch_pool(redis_url, pool, tmp_path) as running:
        front_end = await running.api()
        folder = running.store / "files"

        async def body() -> AsyncIterator[bytes]:
            yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
            yield b"x" * (4 << 20)
            await eventually(lambda: any(".partial-" in name for name in names(folder)))
            front_end.kill()
            front_end.wait()
            yield b"x" * (4 << 20)

        headers = {"content-type": "multipart/form-data; boundary=x"}
        async with httpx.AsyncClient() as client:
            with pytest.raises(httpx.TransportError):
                await client.post(f"{running.url}/v1/files", content=body(), headers=headers)
        (partial,) = names(folder)
        assert ".partial-" in partial
        assert await redis.hget(keys.stored(ANONYMOUS), "files") == b"1"  # type: ignore[misc]
        store = FileStore(str(running.store))
        sweep = FileSweep(store, files, Batches(redis, keys), keep_s=KEEP_S)
        await sweep.run(time.time() + PARTIAL_S + 60)
        assert names(folder) == set()
        assert await redis.exists(keys.stored(ANONYMOUS)) == 0


async def test_an_upload_whose_process_died_is_given_back(
    files: StoredFiles, sweep: FileSweep, redis: Redis, keys: Keys
) -> None:
    quota, now = FileQuota(5, 100), time.time()
    await files.reserve(new_file_id(), "red", 50, quota=quota, until_s=now + 60)
    await sweep.run(now)
    assert await redis.hget(keys.stored("red"), "bytes") == b"50"  # type: ignore[misc]
    await sweep.run(now + 61)
    assert await redis.exists(keys.stored("red")) == 0
