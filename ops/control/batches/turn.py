"""One turn of a batch: decides whether the batch goes on, and ends it when it is complete."""

import asyncio
import time
from collections.abc import Sequence

import orjson

from ops.control.batches.answers import EXPIRED, BatchAnswerer, failed_answer, idempotency_key
from ops.control.batches.committer import Committer, Ended
from ops.control.batches.ending import Ending
from ops.control.batches.input_file import InputFile, InputInvalid, input_file
from ops.control.batches.lines import Line
from ops.control.batches.parts import Parts
from ops.control.batches.pending_lines import PendingLines
from ops.control.batches.results import Results
from ops.control.batches.sending import Sending
from shared.protocol.access.rights import Access, Scope
from shared.store.batches.batches import Competition, Turn
from shared.store.batches.records import Batch, BatchStatus, LineError

MAX_TRIES = 3
"""Maximum number of failed turns, and of process deaths, before a batch is given up.

Each new result of the batch resets both counts to 0.
"""
RENEW_S = 2.0
CANCEL_S = 600.0
"""Seconds that running requests of a cancelled batch have to end."""


class BatchTurn:
    """One turn of a batch.

    After a crash, the next turn continues with the requests that have no recorded result.
    """

    def __init__(self, parts: Parts, turn: Turn, batch: Batch, competition: Competition) -> None:
        self._parts = parts
        self._turn = turn
        self._batch = batch
        self._ending = Ending(parts, turn, batch)
        self._competition = competition
        self._is_cancelled = batch.status is BatchStatus.CANCELLING
        self._sending: Sending | None = None

    async def run(self) -> float | None:
        """Run the turn, and return the seconds until the next one; None if the batch has ended.

        Raises:
            LeaseLost: another process runs the batch.
            RedisUnavailable: Redis can't be reached. The batch goes on later.
            JobFailed: the file store can't be used. The batch goes on later.
        """
        work = asyncio.create_task(self._run())
        renewing = asyncio.create_task(self._keep_lease())
        try:
            await asyncio.wait({renewing, work}, return_when=asyncio.FIRST_COMPLETED)
            if renewing.done():
                renewing.result()
            return await work
        finally:
            for task in (renewing, work):
                task.cancel()
            await asyncio.gather(renewing, work, return_exceptions=True)

    async def _keep_lease(self) -> None:
        """Renew the lease, adapt the window, and stop sending once the batch is cancelled."""
        batches = self._parts.batches
        while True:
            await asyncio.sleep(RENEW_S)
            self._competition = await batches.renew(self._turn)
            batch = await batches.get(self._batch.id)
            is_new = bool(batch and batch.status is BatchStatus.CANCELLING) > self._is_cancelled
            self._is_cancelled |= is_new
            if self._sending:
                self._sending.window = await self._parts.window.share(self._competition)
            if self._sending and is_new:
                self._sending.stop()

    async def _run(self) -> float | None:
        batch = self._batch
        if await self._gave_up():
            return None
        if batch.status is BatchStatus.VALIDATING and self._is_late():
            error = LineError(code=EXPIRED.code, message=EXPIRED.message)
            await self._ending.end(BatchStatus.EXPIRED, [error])
            return None
        try:
            async with input_file(self._parts, batch) as file:
                wait_s = await self._serve(file)
        except InputInvalid as invalid:
            await self._ending.end(BatchStatus.FAILED, invalid.errors)
            return None
        if wait_s is None:
            await self._ending.end(await self._last_status())
        return wait_s

    async def _gave_up(self) -> bool:
        """End the batch if its turns keep failing, and return whether it has ended."""
        batch = self._batch
        if batch.num_deaths > MAX_TRIES:
            message = f"the control process died {MAX_TRIES} times while it ran this batch"
            await self._ending.give_up("batch_run_died", message)
        elif batch.num_failures >= MAX_TRIES:
            message = f"the batch failed {MAX_TRIES} times without a result: {batch.failure}"
            await self._ending.give_up("batch_run_failed", message)
        else:
            return False
        return True

    async def _serve(self, file: InputFile) -> float | None:
        """Answer requests, and return the seconds until the next turn.

        Return None if the batch needn't wait for any request, so that it can end.
        """
        parts, batch, turn = self._parts, self._batch, self._turn
        await parts.batches.start(batch.id, turn.runner, num_requests=len(file.lines))
        committer = Committer(parts.batches, turn, Results(parts.store, batch.id))
        lines = await self._pending(file)
        if self._is_late():
            await _expire(turn, file, lines, committer)
            return None
        pending, window = PendingLines(lines), await parts.window.share(self._competition)
        self._sending = Sending(turn, file, pending, committer, window)
        answerer = BatchAnswerer(
            *(parts.app, _access_of(batch)),
            endpoint=batch.endpoint,
            key=batch.id,
            expires_s=batch.expires_s,
            answering=parts.answering[batch.endpoint],
        )
        still_runs = await self._sending.run(answerer)
        if self._has_waited_enough() or not await self._pending(file):
            return None
        left_s = max(batch.expires_s - time.time(), 0.0)
        return 0.0 if still_runs else min(pending.wait_s(time.monotonic()), left_s)

    async def _pending(self, file: InputFile) -> list[Line]:
        """Return the requests without a recorded result.

        If the batch is cancelled, return only those that already have a job.
        """
        done = await self._parts.batches.done(self._batch.id)
        lines = [line for line in file.lines if not _is_set(done, line.number)]
        if not self._is_cancelled:
            return lines
        keys = [idempotency_key(self._batch.id, line.number) for line in lines]
        have_jobs = await self._parts.queue.have_jobs(self._batch.tenant, keys)
        return [line for line, has_job in zip(lines, have_jobs, strict=True) if has_job]

    def _has_waited_enough(self) -> bool:
        """Return whether the batch was cancelled more than `CANCEL_S` seconds ago."""
        since_s = self._batch.times.get(BatchStatus.CANCELLING)
        return since_s is not None and time.time() - since_s > CANCEL_S

    def _is_late(self) -> bool:
        return time.time() >= self._batch.expires_s

    async def _last_status(self) -> BatchStatus:
        batch = await self._parts.batches.get(self._batch.id)
        if batch and batch.status is BatchStatus.CANCELLING:
            return BatchStatus.CANCELLED
        return BatchStatus.EXPIRED if self._is_late() else BatchStatus.COMPLETED


async def _expire(turn: Turn, file: InputFile, lines: Sequence[Line], committer: Committer) -> None:
    for line in lines:
        custom_id = orjson.loads(await file.read(line))["custom_id"]
        committer.add(Ended.of(turn, line, custom_id, failed_answer(EXPIRED)))
        if committer.is_full:
            await committer.commit()
    await committer.commit()


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
    """Return whether a bit of a Redis bitmap is set. Bit 0 is the highest bit of byte 0."""
    return bit // 8 < len(bitmap) and bool(bitmap[bit // 8] >> (7 - bit % 8) & 1)
