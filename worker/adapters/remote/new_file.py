"""Writes new files up to a maximum number of bytes."""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from shared.errors import AdapterRejected, StoreFailed


def write_new(path: Path, pieces: Iterable[bytes], *, max_bytes: int | None = None) -> None:
    """Write pieces to a file that doesn't exist yet.

    Raises:
        AdapterRejected: the file exists, or the pieces have more than `max_bytes` bytes together.
        StoreFailed: the file can't be written.
    """
    num_written = 0
    with _created(path) as file:
        for piece in pieces:
            num_written += len(piece)
            if max_bytes is not None and num_written > max_bytes:
                raise AdapterRejected(f"its {path.name} has more than {max_bytes} bytes")
            _write(file, piece)


def _created(path: Path) -> BinaryIO:
    try:
        return path.open("xb")
    except FileExistsError:
        raise AdapterRejected(f"it has {path.name} twice") from None
    except OSError as error:
        raise _failed(error) from None


def _write(file: BinaryIO, piece: bytes) -> None:
    try:
        file.write(piece)
        file.flush()  # otherwise a full disk would show later, as an error of reading
    except OSError as error:
        raise _failed(error) from None


def _failed(error: OSError) -> StoreFailed:
    return StoreFailed(f"--adapter-store: a fetched adapter can't be written: {error.strerror}")
