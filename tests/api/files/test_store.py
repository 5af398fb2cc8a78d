"""The file store in a folder."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.pools.file_store import FileStore, ObjectMissing
from shared.errors import ErrorCode, JobFailed, SettingsError


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def content(store: FileStore, name: str) -> bytes:
    return b"".join([piece async for piece in store.read(name)])


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(str(tmp_path / "a" / "b"))


async def test_an_object_is_read_as_it_was_written(store: FileStore) -> None:
    assert await store.write("files/x", pieces(b"one", b"two")) == 6
    assert await content(store, "files/x") == b"onetwo"
    async with store.opened("files/x") as file:
        assert (file.read_at(2, 3), file.readline(9)) == (b"etw", b"o")
    await store.write("files/x", pieces(b"new"))
    assert await content(store, "files/x") == b"new"


async def test_a_write_that_fails_leaves_nothing(store: FileStore, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ValueError("the client has gone")

    with pytest.raises(ValueError, match="gone"):
        await store.write("files/x", broken())
    assert files_in(tmp_path) == []


async def test_what_a_killed_writer_left_is_deleted_with_the_object(
    store: FileStore, tmp_path: Path
) -> None:
    write = """
import asyncio, os, signal, sys
from api.pools.file_store import FileStore

async def killed():
    yield b"half"
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(FileStore(sys.argv[1]).write("files/x", killed()))
"""
    folder = str(tmp_path / "a" / "b")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", write, folder)
    assert await process.wait() == -signal.SIGKILL
    await store.write("files/x-y", pieces(b"another object"))
    assert len(files_in(tmp_path)) == 2
    await store.delete("files/x")
    assert [path.name for path in files_in(tmp_path)] == ["x-y"]


async def test_a_missing_object_is_not_found(store: FileStore) -> None:
    with pytest.raises(ObjectMissing):
        await content(store, "files/none")
    with pytest.raises(ObjectMissing):
        async with store.opened("files/none"):
            pass


async def test_objects_and_folders_are_deleted(store: FileStore) -> None:
    for name in ("work/b/1", "work/b/2", "files/x"):
        await store.write(name, pieces(b"x"))
    await store.delete("work/b")
    await store.delete("files/x")
    await store.delete("files/x")
    for name in ("work/b/1", "files/x"):
        with pytest.raises(ObjectMissing):
            await content(store, name)


async def test_a_store_that_cannot_be_written_is_unavailable(
    store: FileStore, tmp_path: Path
) -> None:
    (tmp_path / "a" / "b" / "files").write_text("a file where a folder should be")
    with pytest.raises(JobFailed, match="file store can't be used") as caught:
        await store.write("files/x", pieces(b"x"))
    assert caught.value.error.code is ErrorCode.FILE_STORE_UNAVAILABLE


@pytest.mark.parametrize("location", ["nosuch://bucket/x", "/proc/no/such/folder"])
def test_an_unusable_location_is_a_settings_error(location: str) -> None:
    with pytest.raises(SettingsError, match="--file-store"):
        FileStore(location)
