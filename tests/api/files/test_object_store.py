"""The file store in a bucket of a real S3 server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from s3_server import BUCKET, S3Server, s3_server

from api.pools.file_store import PIECE_BYTES, FileStore, ObjectMissing
from shared.errors import ErrorCode, JobFailed

LARGE = bytes(range(256)) * (6 * PIECE_BYTES // 256)
"""Larger than a part of an upload in parts, which has 5 MiB at least."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def store(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> FileStore:
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return FileStore(f"s3://{BUCKET}/lorikeet")


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]


@pytest.mark.parametrize("content", [b"one", LARGE], ids=["small", "large"])
async def test_an_object_is_read_as_it_was_written(
    store: FileStore, server: S3Server, content: bytes
) -> None:
    assert await store.write("files/x", pieces(content)) == len(content)
    assert server.files.cat_file(f"{BUCKET}/lorikeet/files/x") == content
    assert b"".join([piece async for piece in store.read("files/x")]) == content
    async with store.opened("files/x") as file:
        assert await asyncio.to_thread(file.read_at, len(content) - 2, 9) == content[-2:]
        assert await asyncio.to_thread(file.read_at, 1, 2) == content[1:3]


async def test_a_write_that_fails_leaves_nothing(store: FileStore, server: S3Server) -> None:
    async def broken() -> AsyncIterator[bytes]:
        async for piece in pieces(LARGE):
            yield piece
        raise ValueError("the client has gone")

    with pytest.raises(ValueError, match="gone"):
        await store.write("files/broken", broken())
    assert not server.files.exists(f"{BUCKET}/lorikeet/files/broken")


async def test_missing_and_deleted_objects_are_not_found(store: FileStore) -> None:
    for name in ("work/b/1", "work/b/2"):
        await store.write(name, pieces(b"x"))
    await store.delete("work/b")
    await store.delete("work/b")
    for name in ("work/b/1", "files/none"):
        with pytest.raises(ObjectMissing):
            [piece async for piece in store.read(name)]
        with pytest.raises(ObjectMissing):
            async with store.opened(name):
                pass


async def test_a_store_that_is_away_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with s3_server(tmp_path) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        store = FileStore(f"s3://{BUCKET}/lorikeet")
        server.stop()
        with pytest.raises(JobFailed, match="file store can't be used") as caught:
            await store.write("files/x", pieces(b"x"))
    assert caught.value.error.code is ErrorCode.FILE_STORE_UNAVAILABLE
