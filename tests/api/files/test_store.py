"""The file store, in a folder and in a bucket of a real S3 server."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from s3_server import BUCKET, S3Server, s3_server

from api.files.file_store import PIECE_BYTES, FileStore, ObjectMissing
from shared.errors import ErrorCode, JobFailed, SettingsError

LARGE = bytes(range(256)) * (6 * PIECE_BYTES // 256)
"""Larger than a part of an upload in parts, which has 5 MiB at least."""


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        for start in range(0, len(part), PIECE_BYTES):
            yield part[start : start + PIECE_BYTES]


async def content(store: FileStore, name: str) -> bytes:
    return b"".join([piece async for piece in store.read(name)])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of the store that isn't in a bucket."""
    return tmp_path / "a" / "b"


@pytest.fixture(params=["folder", "bucket"])
def store(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> FileStore:
    if request.param == "folder":
        return FileStore(str(folder))
    server: S3Server = request.getfixturevalue("server")
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return FileStore(f"s3://{BUCKET}/lorikeet")


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("parts", [(b"one", b"two"), (LARGE,)], ids=["small", "large"])
async def test_an_object_is_read_as_it_was_written(
    store: FileStore, parts: tuple[bytes, ...]
) -> None:
    whole = b"".join(parts)
    assert await store.write("files/x", pieces(*parts)) == len(whole)
    assert await content(store, "files/x") == whole
    async with store.opened("files/x") as file:
        assert await asyncio.to_thread(file.read_at, len(whole) - 2, 9) == whole[-2:]
        assert await asyncio.to_thread(file.read_at, 1, 2) == whole[1:3]
    await store.write("files/x", pieces(b"new"))
    assert await content(store, "files/x") == b"new"


async def test_lines_are_read_one_after_another(store: FileStore) -> None:
    await store.write("files/x", pieces(b"one\ntwo"))
    async with store.opened("files/x") as file:
        lines = [await asyncio.to_thread(file.readline, size) for size in (9, 2, 9)]
    assert lines == [b"one\n", b"tw", b"o"]


async def test_a_write_that_fails_leaves_nothing(
    store: FileStore, folder: Path, server: S3Server
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        async for piece in pieces(LARGE):
            yield piece
        raise ValueError("the client has gone")

    with pytest.raises(ValueError, match="gone"):
        await store.write("files/broken", broken())
    assert files_in(folder) == []
    assert not server.files.exists(f"{BUCKET}/lorikeet/files/broken")


async def test_missing_and_deleted_objects_are_not_found(store: FileStore) -> None:
    names = ("work/b/1", "work/b/2", "files/x")
    for name in names:
        await store.write(name, pieces(b"x"))
    for deleted in ("work/b", "files/x") * 2:
        await store.delete(deleted)
    for name in (*names, "files/none"):
        with pytest.raises(ObjectMissing):
            await content(store, name)
        with pytest.raises(ObjectMissing):
            async with store.opened(name):
                pass


async def test_what_a_killed_writer_left_is_deleted_with_the_object(folder: Path) -> None:
    write = """
import asyncio, os, signal, sys
from api.files.file_store import FileStore

async def killed():
    yield b"half"
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(FileStore(sys.argv[1]).write("files/x", killed()))
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", write, str(folder))
    assert await process.wait() == -signal.SIGKILL
    store = FileStore(str(folder))
    await store.write("files/x-y", pieces(b"another object"))
    assert len(files_in(folder)) == 2
    await store.delete("files/x")
    assert [path.name for path in files_in(folder)] == ["x-y"]


def blocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileStore:
    """Return a store in a folder with a file where it needs a folder."""
    store = FileStore(str(tmp_path))
    (tmp_path / "files").write_text("")
    return store


def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileStore:
    """Return a store in a bucket of a server that has stopped."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with s3_server(tmp_path) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        store = FileStore(f"s3://{BUCKET}/lorikeet")
        server.stop()
    return store


@pytest.mark.parametrize("make", [blocked, away])
async def test_a_store_that_cannot_be_written_is_unavailable(
    make: Callable[..., FileStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make(tmp_path, monkeypatch)
    with pytest.raises(JobFailed, match="file store can't be used") as caught:
        await store.write("files/x", pieces(b"x"))
    assert caught.value.error.code is ErrorCode.FILE_STORE_UNAVAILABLE


@pytest.mark.parametrize("location", ["nosuch://bucket/x", "/proc/no/such/folder"])
def test_an_unusable_location_is_a_settings_error(location: str) -> None:
    with pytest.raises(SettingsError, match="--file-store"):
        FileStore(location)
