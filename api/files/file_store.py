"""The file store: a folder or an object store that front ends and control processes share."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from glob import escape, glob
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, TypeVar

import fsspec

from shared.errors import ErrorCode, JobError, JobFailed, SettingsError

T = TypeVar("T")
PIECE_BYTES = 1 << 20
"""Bytes that are read or written at a time."""
_PARTIAL = ".partial-"


class ObjectMissing(Exception):
    """The store has no object with this name."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in the store."""

    name: str
    written_s: float
    """Unix time in seconds of the last write."""

    @property
    def is_partial(self) -> bool:
        """Whether the object was never completed."""
        return _PARTIAL in self.name


class FileStore:
    """Objects with names such as `files/file-1`, in a folder or in an object store.

    An object is either complete or missing, even if the process that writes it dies. Every method
    raises `JobFailed` if the store can't be reached or is full.
    """

    def __init__(self, location: str) -> None:
        """Open the store at `location`: a folder or a URL such as s3://BUCKET/PREFIX.

        Raises:
            SettingsError: the kind of store isn't supported or installed, or the folder can't be
                created.
        """
        try:
            # Cached listings would hide objects that other processes have written or deleted.
            self._files, root = fsspec.core.url_to_fs(
                location, use_listings_cache=False, skip_instance_cache=True
            )
            self._is_local = isinstance(self._files, fsspec.implementations.local.LocalFileSystem)
            if self._is_local:
                self._files.auto_mkdir = True
                os.makedirs(root, exist_ok=True)
        except (OSError, ValueError, ImportError) as error:
            raise SettingsError(f"--file-store {location}: {error}") from None
        self._root: str = root.rstrip("/")

    async def write(self, name: str, pieces: AsyncIterator[bytes]) -> int:
        """Write an object, and return its size in bytes. An old object is replaced."""
        args = self._files, self._path(name), self._is_local
        writer = await asyncio.to_thread(_guarded, _Writer, *args)
        try:
            num_bytes = 0
            async for piece in pieces:
                await asyncio.to_thread(writer.write, piece)
                num_bytes += len(piece)
            await asyncio.to_thread(writer.finish)
        except BaseException:
            await asyncio.to_thread(writer.discard)
            raise
        return num_bytes

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """Yield the content of an object.

        Raises:
            ObjectMissing: the store has no such object.
        """
        file = await asyncio.to_thread(_guarded, self._open, name)
        try:
            while piece := await asyncio.to_thread(_guarded, file.read, PIECE_BYTES):
                yield piece
        finally:
            await asyncio.to_thread(file.close)

    async def delete(self, name: str) -> None:
        """Delete an object or a folder of objects, if it exists.

        Also deletes incomplete copies of it that processes left behind when they died.
        """
        await asyncio.to_thread(_guarded, self._delete, name)

    async def objects(self, folder: str) -> list[StoredObject]:
        """Return the objects in a folder and in the folders below it."""
        return await asyncio.to_thread(_guarded, self._objects, folder)

    @asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator["OpenObject"]:
        """Provide an object for reads at any position.

        Raises:
            ObjectMissing: the store has no such object.
        """
        file = await asyncio.to_thread(_guarded, self._open, name)
        try:
            yield OpenObject(file)
        finally:
            await asyncio.to_thread(file.close)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _open(self, name: str) -> IO[bytes]:
        try:
            file: Any = self._files.open(self._path(name), "rb")
        except FileNotFoundError:
            raise ObjectMissing(name) from None
        # Files of fsspec's object stores can't limit the length of a line.
        return file if self._is_local else BufferedReader(file)

    def _objects(self, folder: str) -> list[StoredObject]:
        found = self._files.find(self._path(folder), detail=True)
        return [
            StoredObject(path.removeprefix(f"{self._root}/"), _written_s(info))
            for path, info in found.items()
        ]

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm(self._path(name), recursive=True)
        if self._is_local:
            for partial in glob(f"{escape(self._path(name))}{_PARTIAL}*"):
                Path(partial).unlink(missing_ok=True)


class OpenObject:
    """An object that is open for reading. The methods block, so callers use threads.

    They raise `JobFailed` if the store can't be reached.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readline(self, num_bytes: int) -> bytes:
        """Return the rest of the current line, but at most `num_bytes` bytes."""
        return _guarded(self._file.readline, num_bytes)

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        """Return `num_bytes` bytes from position `offset`, or fewer at the end of the object."""
        _guarded(self._file.seek, offset)
        return _guarded(self._file.read, num_bytes)


class _Writer:
    """Writes one object atomically: it appears as a whole or not at all.

    Object stores guarantee this. In a folder, the content is written to a temporary file, which is
    then synced and renamed.
    """

    def __init__(self, files: Any, path: str, is_local: bool) -> None:
        self._files, self._path, self._is_local = files, path, is_local
        suffix = f"{_PARTIAL}{secrets.token_hex(4)}" if is_local else ""
        self._written = path + suffix
        self._file = files.open(self._written, "wb")

    def write(self, piece: bytes) -> None:
        _guarded(self._file.write, piece)

    def finish(self) -> None:
        _guarded(self._finish)

    def _finish(self) -> None:
        if self._is_local:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if self._is_local:
            os.replace(self._written, self._path)

    def discard(self) -> None:
        with suppress(OSError):
            if self._is_local:
                self._file.close()
                Path(self._written).unlink(missing_ok=True)
            else:
                self._file.discard()
                self._file.closed = True  # else fsspec tries to complete the object later


def _written_s(info: Mapping[str, Any]) -> float:
    """Return the time of an object's last write. Stores use different names and formats for it."""
    written = info.get("mtime") or info.get("LastModified") or info["updated"]
    return written.timestamp() if isinstance(written, datetime) else float(written)


def _guarded(call: Callable[..., T], *args: Any) -> T:
    """Call a function of the store, and turn its errors into `JobFailed`."""
    try:
        return call(*args)
    except ObjectMissing:
        raise
    except Exception as error:  # object stores have exceptions of their own
        message = f"the file store can't be used: {type(error).__name__}: {str(error)[:200]}"
        failure = JobError(code=ErrorCode.FILE_STORE_UNAVAILABLE, message=message)
        raise JobFailed(failure) from error
