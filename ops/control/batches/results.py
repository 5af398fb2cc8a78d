"""Results of a batch in the file store: parts while it runs, then its output files."""

import secrets
from collections.abc import AsyncIterator, Sequence

from api.files.file_store import FileStore, ObjectMissing
from api.files.own_files import content_name
from ops.control.batches.lines import Line, decode_lines, encode_lines
from shared.protocol.ids import BatchId, FileId
from shared.store.batches.records import Batch

WORK = "work"
"""Folder in the file store with the parts of batches that haven't ended."""
LINES = "lines"
"""Name of the object with a batch's checked lines."""
ANSWERS, FAILURES = "answers", "failures"
"""Kinds of parts: answers, and requests that failed. The names of parts end with the kind."""


class Results:
    """Results of one batch."""

    def __init__(self, store: FileStore, batch_id: BatchId) -> None:
        self._store = store
        self._id = batch_id

    async def write_part(self, kind: str, lines: Sequence[bytes]) -> str:
        """Write a part and return its name. The part is ignored until Redis has its name."""
        name = f"{WORK}/{self._id}/{secrets.token_hex(8)}-{kind}"
        await self._store.write(name, _each(lines))
        return name

    async def write_file(self, kind: str, parts: Sequence[str]) -> tuple[FileId, int] | None:
        """Join the parts of one kind into a file. Return its id and size, or None without parts."""
        chosen = [part for part in parts if part.endswith(kind)]
        if not chosen:
            return None
        digits = self._id.removeprefix("batch_")
        file_id = FileId(f"file-{digits}-{kind}")
        return file_id, await self._store.write(content_name(file_id), self._content(chosen))

    async def write_lines(self, lines: Sequence[Line]) -> None:
        """Keep the checked lines of the input for later turns."""
        await self._store.write(f"{WORK}/{self._id}/{LINES}", _each([encode_lines(lines)]))

    async def read_lines(self) -> list[Line] | None:
        """Return the checked lines of the input, or None if they haven't been written."""
        try:
            pieces = [piece async for piece in self._store.read(f"{WORK}/{self._id}/{LINES}")]
        except ObjectMissing:
            return None
        return decode_lines(b"".join(pieces))

    async def clear(self) -> None:
        """Delete the parts and the checked lines."""
        await self._store.delete(f"{WORK}/{self._id}")

    async def _content(self, parts: Sequence[str]) -> AsyncIterator[bytes]:
        for part in parts:
            async for piece in self._store.read(part):
                yield piece


def file_name(batch: Batch, kind: str) -> str:
    """Return the name of an output file, as clients see it."""
    return f"{batch.id}_{kind}.jsonl"


async def _each(lines: Sequence[bytes]) -> AsyncIterator[bytes]:
    yield b"".join(lines)
