"""Provides a batch's input file, and checks it once. `api/files/file_store.py` reads its bytes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from api.files.file_store import ObjectMissing, OpenObject
from api.files.own_files import content_name
from ops.control.batches.lines import Line, LineCheck
from ops.control.batches.parts import Parts
from ops.control.batches.results import Results
from shared.store.batches.records import Batch, LineError

CHECK_BYTES = 1 << 20
"""Number of bytes that one step of the check of an input file reads.

Checks of several files take turns, one step each.
"""


class InputInvalid(Exception):
    """The input file has faults, or is missing."""

    def __init__(self, errors: Sequence[LineError]) -> None:
        super().__init__(errors[0].message)
        self.errors = errors


@dataclass(frozen=True, slots=True)
class InputFile:
    """A checked input file."""

    lines: list[Line]
    _object: OpenObject

    async def read(self, line: Line) -> bytes:
        """Return the bytes of a line."""
        return await asyncio.to_thread(self._object.read_at, line.offset, line.num_bytes)


@asynccontextmanager
async def input_file(parts: Parts, batch: Batch) -> AsyncIterator[InputFile]:
    """Provide the input file of a batch. The first turn checks the file.

    Raises:
        InputInvalid: the file has faults, or is missing.
        JobFailed: the file store can't be used.
    """
    results = Results(parts.store, batch.id)
    try:
        async with parts.store.opened(content_name(batch.input_file)) as file:
            lines = await results.read_lines()
            if lines is None:
                lines = await _checked(parts, batch, file)
                await results.write_lines(lines)
            yield InputFile(lines, file)
    except ObjectMissing:
        message = f"the input file {batch.input_file} was deleted"
        raise InputInvalid([LineError(code="file_not_found", message=message)]) from None


async def _checked(parts: Parts, batch: Batch, file: OpenObject) -> list[Line]:
    check = LineCheck(file, batch.endpoint, max_bytes=parts.max_line_bytes)
    is_complete = False
    while not is_complete:
        async with parts.checks:
            is_complete = await asyncio.to_thread(check.step, CHECK_BYTES)
    if check.errors:
        raise InputInvalid(check.errors)
    return check.lines
