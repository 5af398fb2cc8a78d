"""Stores a batch's results in the file store.

While the batch runs, its results are stored as parts. The parts are then joined to output files.
"""

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
"""Kinds of parts: successful answers, and failures. The name of a part ends with its kind."""


class Results:
    """Results of one batch."""

    def __init__(self, store: FileStore, batch_id: BatchId) -> None:
        self._store = store
        self._id = batch_id

    async def write_part(self, kind: str, lines: Sequence[bytes]) -> str:
        """Write a part and return its name. Readers ignore the part until its name is in Redis."""
        name = f"{WORK}/{self._id}/{secrets.token_hex(8)}-{kind}"
        await self._store.write(name, _each(lines))
        return name

    async def write_file(self, kind: str, parts: Sequence[str]) -> tuple[FileId, int] | None:
        """Join the parts of one kind into an output file.

        Return the file's id and its size in bytes, or None if there are no parts of this kind.
        """
        chosen = [part for part in parts if part.endswith(kind)]
        if not chosen:
            return None
        digits = self._id.removeprefix("batch_")
        file_id = FileId(f"file-{digits}-{kind}")
        return file_id, await self._store.write(content_name(file_id), self._content(chosen))

    async def write_lines(self, lines: Sequence[Line]) -> None:
        """Store the checked lines of the input file for later turns."""
        await self._store.write(f"{WORK}/{self._id}/{LINES}", _each([encode_lines(lines)]))

    async def read_lines(self) -> list[Line] | None:
        """Return the lines that `write_lines` stored, or None if it hasn't stored any."""
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
