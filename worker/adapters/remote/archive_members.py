"""Lists members of tar and zip files. Checks keep hostile files from exhausting memory."""

import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

from shared.errors import AdapterRejected
from worker.adapters.remote.budget import CHUNK_BYTES, Budget

MAX_DIRECTORY_BYTES = 1 << 20
_END, _END_BYTES, _LOCATOR, _LOCATOR_BYTES = b"PK\5\6", 22, b"PK\6\7", 20
_MAX_COMMENT_BYTES = (1 << 16) - 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
MAX_HEADER_BYTES = CHUNK_BYTES


def zip_members(file: BinaryIO, budget: Budget) -> Iterator[tuple[str, Iterator[bytes] | None]]:
    """Yield the name of each member and its content in pieces. Folders have the content None.

    Raises:
        AdapterRejected: a member isn't allowed, or the list of members is too long.
        BadZipFile: the file is malformed.
    """
    _check_directory(file)
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        for info in infos:
            _check(info)
        for info in infos:
            yield info.filename, None if info.is_dir() else _zip_pieces(archive, info, budget)


def _check_directory(file: BinaryIO) -> None:
    """Check that a zip file's list of members is short, because Python reads all of it at once.

    Raises:
        AdapterRejected: the list is longer than MAX_DIRECTORY_BYTES, or the file is a zip64 file.
        BadZipFile: the file has no end record.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - _MAX_COMMENT_BYTES - _END_BYTES - _LOCATOR_BYTES))
    tail = file.read()
    file.seek(0)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        raise zipfile.BadZipFile("it has no end record")
    (num_bytes,) = struct.unpack("<L", tail[at + 12 : at + 16])
    has_locator = at >= _LOCATOR_BYTES and tail[at - _LOCATOR_BYTES :].startswith(_LOCATOR)
    if has_locator or num_bytes > MAX_DIRECTORY_BYTES:
        raise AdapterRejected(
            f"the archive's list of members has more than {MAX_DIRECTORY_BYTES} bytes, or the "
            "archive is a zip64 file"
        )


def _check(info: zipfile.ZipInfo) -> None:
    member = f"the archive has the member {info.orig_filename[:200]!r}"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise AdapterRejected(f"{member}, a link or special file")
    if "\0" in info.orig_filename:
        raise AdapterRejected(f"{member}, a path that isn't allowed")
    if info.flag_bits & _ENCRYPTED:
        raise AdapterRejected(f"{member}, which is encrypted")
    if info.compress_type not in _METHODS:
        raise AdapterRejected(f"{member}, which is neither stored nor deflated")


def _zip_pieces(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> Iterator[bytes]:
    with archive.open(info) as member:
        while piece := member.read(CHUNK_BYTES):
            budget.unpack(len(piece))
            yield piece


class _Bounded:
    """A file that returns at most MAX_HEADER_BYTES per read, regardless of sizes in headers."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER_BYTES:
            raise AdapterRejected(f"the archive has a header of more than {MAX_HEADER_BYTES} bytes")
        return self._file.read(size)


def tar_members(file: BinaryIO) -> Iterator[tuple[str, Iterator[bytes] | None]]:
    """Yield the name of each member and its content in pieces. Folders have the content None.

    `file` isn't compressed, and is closed at the end.

    Raises:
        AdapterRejected: a member isn't allowed, or its header is too long.
        TarError: the file is malformed.
    """
    with file, tarfile.open(fileobj=cast(IO[bytes], _Bounded(file)), mode="r:") as archive:
        for info in archive:
            if not (info.isdir() or info.isreg()) or info.issparse():
                member = f"the archive has the member {info.name[:200]!r}"
                raise AdapterRejected(f"{member}, a link or special file")
            yield info.name, None if info.isdir() else _tar_pieces(archive, info)


def _tar_pieces(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    member = archive.extractfile(info)
    assert member is not None  # it is a regular file
    while piece := member.read(CHUNK_BYTES):
        yield piece
