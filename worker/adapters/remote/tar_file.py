"""Lists the members of tar files, after checks that keep hostile files from exhausting memory."""

import tarfile
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

from shared.errors import AdapterRejected
from worker.adapters.remote.budget import CHUNK_BYTES

MAX_HEADER_BYTES = CHUNK_BYTES


class _Bounded:
    """A file from which at most MAX_HEADER_BYTES are read at once.

    Python's parser believes the size that an extended header states, and reads it at once.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER_BYTES:
            raise AdapterRejected(f"the archive has a header of more than {MAX_HEADER_BYTES} bytes")
        return self._file.read(size)


def tar_members(file: BinaryIO) -> Iterator[tuple[str, Iterator[bytes] | None]]:
    """Yield the name of each member with its content in pieces, which is None for folders.

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
            yield info.name, None if info.isdir() else _pieces(archive, info)


def _pieces(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    member = archive.extractfile(info)
    assert member is not None  # it is a regular file
    while piece := member.read(CHUNK_BYTES):
        yield piece
