"""Unpacks archives that may be hostile.

Only the files of one adapter are written, each under its own name, into one folder. Names and kinds
of members are checked, and bytes are counted while they are unpacked, because headers may lie. The
caller deletes the folder of an archive that is refused.
"""

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from shared.errors import AdapterRejected
from shared.protocol.adapter_files import CONFIG_FILE, PROMPT_FILES, WEIGHTS_FILE
from shared.store.adapters.fetch_progress import Phase
from worker.adapters.remote.archive_members import tar_members, zip_members
from worker.adapters.remote.budget import CHUNK_BYTES, Budget
from worker.adapters.remote.new_file import write_new

MAX_MEMBERS = 1000
MAX_SMALL_BYTES = 2 << 20
"""Largest size in bytes of each of the adapter's files, except for the weights."""
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_MALFORMED = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, OSError),
    *(EOFError, ValueError, RecursionError, NotImplementedError, OverflowError, KeyError),
)

Members = Iterator[tuple[str, Iterator[bytes] | None]]


def unpack(archive: Path, folder: Path, budget: Budget) -> None:
    """Write the files of the adapter in `archive` to the empty folder `folder`.

    Raises:
        AdapterRejected: the archive is malformed, too large, or has members that aren't allowed.
        StoreFailed: a file can't be written.
    """
    budget.phase = Phase.UNPACKING
    try:
        with archive.open("rb") as file:
            _write_members(_members(file, archive, budget), folder)
    except _MALFORMED as error:
        raise AdapterRejected(f"the archive is malformed: {error}") from None


def is_file_of_adapter(name: str) -> bool:
    """Return whether a file with this name belongs to an adapter."""
    is_prompt_file = any(fnmatch(name, pattern) for pattern in PROMPT_FILES)
    return name in (CONFIG_FILE, WEIGHTS_FILE) or (is_prompt_file and not name.startswith("."))


def max_bytes_of(name: str) -> int | None:
    """Return the maximum bytes of the adapter's file `name`; None if only the budget limits it."""
    return None if name == WEIGHTS_FILE else MAX_SMALL_BYTES


def _members(file: BinaryIO, archive: Path, budget: Budget) -> Members:
    start = file.read(512)
    file.seek(0)
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        return zip_members(file, budget)
    if start.startswith(b"\x1f\x8b"):
        unpacked = archive.with_suffix(".unpacked")
        write_new(unpacked, _inflated(file, budget))
        return tar_members(unpacked.open("rb"))
    if start[257:262] == b"ustar":
        return tar_members(file)
    raise AdapterRejected("it isn't a zip, tar or tar.gz archive")


def _write_members(members: Members, folder: Path) -> None:
    home: PurePosixPath | None = None
    for number, (name, pieces) in enumerate(members):
        if number >= MAX_MEMBERS:
            raise AdapterRejected(f"the archive has more than {MAX_MEMBERS} members")
        path = _checked_path(name)
        if pieces is None or not is_file_of_adapter(path.name) or len(path.parts) > 2:
            continue
        if home not in (None, path.parent):
            raise AdapterRejected(f"the archive has adapters in both {home} and {path.parent}")
        home = path.parent
        write_new(folder / path.name, pieces, max_bytes=max_bytes_of(path.name))


def _checked_path(name: str) -> PurePosixPath:
    """Return the path of a member. Refuse pickles, and paths that lead out of the archive."""
    path, shown = PurePosixPath(name), f"the archive has the member {name[:200]!r}"
    is_odd = not name or any(c in "\\:" or c < " " for c in name)
    if path.is_absolute() or ".." in path.parts or is_odd:
        raise AdapterRejected(f"{shown}, a path that isn't allowed")
    if path.suffix.lower() in _PICKLES:
        raise AdapterRejected(
            f"{shown}, a pickle, which can run code when it is read; pack the files without it"
        )
    return path


def _inflated(file: BinaryIO, budget: Budget) -> Iterator[bytes]:
    """Yield the content of a gzip file. The file may consist of several parts."""
    inflate = zlib.decompressobj(wbits=31)
    while data := file.read(CHUNK_BYTES):
        while data:
            if inflate.eof:
                data = data.lstrip(b"\0")  # padding
                inflate = zlib.decompressobj(wbits=31) if data else inflate
            piece = inflate.decompress(data, CHUNK_BYTES) if data else b""
            budget.unpack(len(piece))
            yield piece
            data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
    if not inflate.eof:
        raise EOFError("it is truncated")
