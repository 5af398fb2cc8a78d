"""Ends a batch: writes its output files, and records its final status."""

import time
from collections.abc import Sequence

import structlog

from ops.control.batches.parts import Parts
from ops.control.batches.results import ANSWERS, FAILURES, Results, file_name
from shared.errors import JobFailed, LeaseLost, RedisUnavailable
from shared.protocol.ids import FileId
from shared.store.batches.batches import Turn
from shared.store.batches.records import Batch, BatchStatus, LineError, Purpose, StoredFile

log = structlog.get_logger()


class Ending:
    """Ends one batch."""

    def __init__(self, parts: Parts, turn: Turn, batch: Batch) -> None:
        self._parts = parts
        self._turn = turn
        self._batch = batch
        self._results = Results(parts.store, batch.id)

    async def end(self, status: BatchStatus, errors: Sequence[LineError] = ()) -> None:
        """End the batch with the results recorded so far.

        Raises:
            LeaseLost: the turn has ended.
            RedisUnavailable: Redis can't be reached. The batch may have ended nevertheless.
            JobFailed: the file store can't be used.
        """
        parts, batch = self._parts, self._batch
        await parts.batches.finalize(batch.id, self._turn.runner)
        names = await parts.batches.parts(batch.id)
        files = {kind: await self._write_file(kind, names) for kind in (ANSWERS, FAILURES)}
        await self._record(status, errors, files)
        await self._results.clear()

    async def give_up(self, code: str, message: str) -> None:
        """End a batch whose turns keep failing, with `code` and `message` as its error.

        The batch's results are kept if they can be read.
        """
        errors = [LineError(code=code, message=message)]
        log.error("batch_given_up", batch_id=self._batch.id, reason=message)
        try:
            await self.end(BatchStatus.FAILED, errors)
        except (LeaseLost, RedisUnavailable, JobFailed):
            raise
        except Exception:
            log.exception("batch_results_lost", batch_id=self._batch.id)
            await self._record(BatchStatus.FAILED, errors, {})

    async def _record(
        self,
        status: BatchStatus,
        errors: Sequence[LineError],
        files: dict[str, FileId | None],
    ) -> None:
        await self._parts.batches.end(
            self._batch.id,
            self._turn.runner,
            status,
            keep_s=self._parts.keep_s,
            announces=self._parts.announces,
            output_file=files.get(ANSWERS),
            error_file=files.get(FAILURES),
            errors=errors,
        )
        log.info("batch_ended", batch_id=self._batch.id, status=status.value)

    async def _write_file(self, kind: str, names: Sequence[str]) -> FileId | None:
        written = await self._results.write_file(kind, names)
        if written is None:
            return None
        file_id, num_bytes = written
        now, batch = int(time.time()), self._batch
        file = StoredFile(
            id=file_id,
            tenant=batch.tenant,
            models=batch.models,
            name=file_name(batch, kind),
            purpose=Purpose.BATCH_OUTPUT,
            num_bytes=num_bytes,
            created_s=now,
            expires_s=now + self._parts.keep_s,
        )
        await self._parts.files.add(file)
        return file_id
