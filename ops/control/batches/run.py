"""Runs one batch: checks its file, answers its requests, and writes its output files."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson
import structlog
from fastapi import FastAPI

from api.files.own_files import content_name
from api.files.store import FileStore, ObjectMissing
from ops.control.batches.answers import BatchAnswer, BatchClient
from ops.control.batches.lines import Line, check_lines, in_order
from ops.control.batches.results import ANSWERS, FAILURES, Results, file_name
from shared.errors import LeaseLost
from shared.protocol.access.rights import Access, Scope
from shared.store.batches.batches import MAX_LINES_PER_COMMIT, Batches, CommittedLines
from shared.store.batches.files import StoredFiles
from shared.store.batches.records import (
    Batch,
    BatchStatus,
    BatchUsage,
    FileId,
    LineError,
    Purpose,
    StoredFile,
)
from shared.store.queue import Queue

COMMIT_S = 0.5
"""Seconds between two records of what has ended."""
RENEW_S = 2.0
"""Seconds between two renewals of the lease."""
CANCEL_S = 600.0
"""Seconds that running requests of a cancelled batch have to end."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all batches of a control process share."""

    app: FastAPI
    """An internal app of the front end, which has started."""
    store: FileStore
    files: StoredFiles
    batches: Batches
    queue: Queue
    runner: str
    """Name of this process in leases."""
    keep_s: int
    """Seconds for which output files and ended batches are kept."""
    announces: bool
    """Whether a webhook announces the ends of batches."""
    max_line_bytes: int
    window: Callable[[], int]
    """Returns the number of requests of a batch that should run or wait now."""


@dataclass(frozen=True, slots=True)
class _Ended:
    line: Line
    custom_id: str
    answer: BatchAnswer


class BatchRun:
    """One run of a batch. After a crash, another run answers the requests that haven't ended."""

    def __init__(self, parts: Parts, batch: Batch) -> None:
        self._parts = parts
        self._batch = batch
        self._results = Results(parts.store, batch.id)
        self._ended: list[_Ended] = []
        self._running: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._has_answered = asyncio.Event()
        self._failure: BaseException | None = None
        self._is_cancelled = batch.status is BatchStatus.CANCELLING
        self._cancelled_at = time.monotonic()

    async def run(self) -> None:
        """Run the batch to its end.

        Raises:
            LeaseLost: another process runs the batch.
            RedisUnavailable: Redis can't be reached. The batch goes on later.
            JobFailed: the file store can't be used. The batch goes on later.
        """
        renewing = asyncio.create_task(self._keep_lease())
        work = asyncio.create_task(self._run())
        try:
            await asyncio.wait({renewing, work}, return_when=asyncio.FIRST_COMPLETED)
            if renewing.done():
                renewing.result()
            await work
        finally:
            for task in (renewing, work, *self._running):
                task.cancel()
            await asyncio.gather(renewing, work, *self._running, return_exceptions=True)

    async def _run(self) -> None:
        try:
            name = content_name(self._batch.input_file)
            async with self._parts.store.local_copy(name) as path:
                if not await self._serve(path):
                    return
        except ObjectMissing:
            message = f"the input file {self._batch.input_file} was deleted"
            await self._fail([LineError(code="file_not_found", message=message)])
            return
        await self._finalize()

    async def _keep_lease(self) -> None:
        """Renew the lease and notice a cancellation, until the lease is lost."""
        batch_id, batches = self._batch.id, self._parts.batches
        while await batches.lease(batch_id, self._parts.runner):
            batch = await batches.get(batch_id)
            if batch and batch.status is BatchStatus.CANCELLING and not self._is_cancelled:
                self._is_cancelled, self._cancelled_at = True, time.monotonic()
            self._changed.set()
            await asyncio.sleep(RENEW_S)
        raise LeaseLost(f"another control process runs the batch {batch_id}")

    async def _serve(self, path: Path) -> bool:
        """Answer all requests, and return whether the file is valid."""
        parts, batch = self._parts, self._batch
        checked = await asyncio.to_thread(
            check_lines, path, batch.endpoint, max_bytes=parts.max_line_bytes
        )
        if checked.errors:
            await self._fail(checked.errors)
            return False
        await parts.batches.start(batch.id, parts.runner, num_requests=len(checked.lines))
        done = await parts.batches.done(batch.id)
        pending = [line for line in in_order(checked.lines) if not _is_set(done, line.number)]
        committing = asyncio.create_task(self._commit_all())
        committing.add_done_callback(self._on_done)
        try:
            async with BatchClient.of(
                parts.app, _access_of(batch), key=batch.id, expires_s=batch.expires_s
            ) as client:
                await self._answer_all(client, path, pending)
            self._has_answered.set()
            await committing  # it isn't interrupted, since a line can't be recorded again
        finally:
            committing.cancel()
            with suppress(asyncio.CancelledError):
                await committing
        return True

    async def _answer_all(self, client: BatchClient, path: Path, pending: Sequence[Line]) -> None:
        """Answer requests, so many at a time that the pool's idle capacity is used."""
        with path.open("rb") as file:
            for line in pending:
                while len(self._running) >= self._parts.window() and not self._is_cancelled:
                    await self._wait()
                if self._is_cancelled:
                    break
                file.seek(line.offset)
                raw = orjson.loads(file.read(line.num_bytes))
                task = asyncio.create_task(
                    self._answer(client, line, raw["custom_id"], raw["body"])
                )
                self._running.add(task)
                task.add_done_callback(self._on_done)
        while self._running and not self._has_given_up():
            await self._wait()

    def _has_given_up(self) -> bool:
        return self._is_cancelled and time.monotonic() - self._cancelled_at > CANCEL_S

    async def _wait(self) -> None:
        """Wait until a request has ended or the lease was renewed."""
        self._changed.clear()
        await self._changed.wait()
        if self._failure:
            raise self._failure

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            self._failure = self._failure or task.exception()
        self._changed.set()

    async def _answer(
        self, client: BatchClient, line: Line, custom_id: str, body: dict[str, object]
    ) -> None:
        answer = await client.answer(self._batch.endpoint, line.number, orjson.dumps(body))
        self._ended.append(_Ended(line, custom_id, answer))

    async def _commit_all(self) -> None:
        while not self._has_answered.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._has_answered.wait(), COMMIT_S)
            await self._commit()

    async def _commit(self) -> None:
        """Record what has ended: first the results, then the fact that they count."""
        while self._ended:
            ended = self._ended[:MAX_LINES_PER_COMMIT]
            await self._commit_some(ended)
            del self._ended[: len(ended)]

    async def _commit_some(self, ended: Sequence[_Ended]) -> None:
        answered = [each for each in ended if each.answer.is_success]
        failed = [each for each in ended if not each.answer.is_success]
        names = [
            await self._results.write_part(kind, [self._line(each) for each in some])
            for kind, some in ((ANSWERS, answered), (FAILURES, failed))
            if some
        ]
        usages = [each.answer.usage() for each in answered]
        lines = CommittedLines(
            parts=names,
            lines=[each.line.number for each in ended],
            num_completed=len(answered),
            num_failed=len(failed),
            usage=BatchUsage(
                prompt_tokens=sum(usage.prompt_tokens for usage in usages),
                completion_tokens=sum(usage.completion_tokens for usage in usages),
                cached_tokens=sum(usage.cached_tokens for usage in usages),
            ),
        )
        await self._parts.batches.commit(self._batch.id, self._parts.runner, lines)
        for each in ended:
            if each.answer.job:
                await self._parts.queue.erase(each.answer.job)

    def _line(self, ended: _Ended) -> bytes:
        return ended.answer.line(self._batch.id, ended.line.number, ended.custom_id)

    async def _fail(self, errors: Sequence[LineError]) -> None:
        await self._end(BatchStatus.FAILED, errors=errors)

    async def _finalize(self) -> None:
        parts, batch = self._parts, self._batch
        await parts.batches.finalize(batch.id, parts.runner)
        names = await parts.batches.parts(batch.id)
        files = {kind: await self._write_file(kind, names) for kind in (ANSWERS, FAILURES)}
        status = BatchStatus.CANCELLED if self._is_cancelled else BatchStatus.COMPLETED
        if not self._is_cancelled and time.time() >= batch.expires_s:
            status = BatchStatus.EXPIRED
        await self._end(status, output_file=files[ANSWERS], error_file=files[FAILURES])

    async def _write_file(self, kind: str, names: Sequence[str]) -> FileId | None:
        written = await self._results.write_file(kind, names)
        if written is None:
            return None
        file_id, num_bytes = written
        now, batch = int(time.time()), self._batch
        file = StoredFile(
            id=file_id,
            tenant=batch.tenant,
            name=file_name(batch, kind),
            purpose=Purpose.BATCH_OUTPUT,
            num_bytes=num_bytes,
            created_s=now,
            expires_s=now + self._parts.keep_s,
        )
        await self._parts.files.add(file)
        return file_id

    async def _end(
        self,
        status: BatchStatus,
        *,
        output_file: FileId | None = None,
        error_file: FileId | None = None,
        errors: Sequence[LineError] = (),
    ) -> None:
        await self._parts.batches.end(
            self._batch.id,
            self._parts.runner,
            status,
            keep_s=self._parts.keep_s,
            announces=self._parts.announces,
            output_file=output_file,
            error_file=error_file,
            errors=errors,
        )
        log.info("batch_ended", batch_id=self._batch.id, status=status.value)


def _access_of(batch: Batch) -> Access:
    """Return the rights of the key that created a batch. The queue checks the key's limits."""
    scopes = frozenset({Scope.INFERENCE})
    return Access(
        tenant=batch.tenant,
        scopes=scopes,
        models=batch.models,
        key_id=batch.key_id,
        books_pool=batch.books_pool,
    )


def _is_set(bitmap: bytes, bit: int) -> bool:
    return bit // 8 < len(bitmap) and bool(bitmap[bit // 8] >> (7 - bit % 8) & 1)
