"""Reads and checks adapters on behalf of front ends, and reports the findings."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from shared.adapter_sources import without_query
from shared.errors import AdapterRejected, ErrorCode, JobError, RedisUnavailable, StoreFailed
from shared.protocol.ids import InspectionId
from shared.store.adapters.inspections import Findings, Inspection, Inspections
from shared.store.redis.retry import retry_until_available
from worker.adapters.loader_threads import LoaderThreads
from worker.adapters.source.remote_reads import RemoteReads
from worker.adapters.source.upload_fetcher import UploadFetcher

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)
class Inspector:
    """Answers inspection requests. Files on this machine are read for one request at a time."""

    inspections: Inspections
    inspect: Callable[[Inspection], Findings]
    """Reads and checks an adapter. It blocks."""
    thread: LoaderThreads
    """Runs `inspect` for adapters on this machine."""
    uploads: UploadFetcher
    """Fetches the files of uploaded adapters before they are read."""
    remote: RemoteReads
    """Has separate threads for adapters at URLs, because servers may be slow."""
    _asked: asyncio.Queue[InspectionId] = field(default_factory=asyncio.Queue, init=False)

    def accept(self, inspection_id: InspectionId) -> None:
        """Queue an inspection requested by a front end."""
        self._asked.put_nowait(inspection_id)

    async def run(self) -> None:
        """Answer inspections until cancelled."""
        async with asyncio.TaskGroup() as answers:
            while True:
                answers.create_task(self._answer(await self._asked.get()))

    async def _answer(self, inspection_id: InspectionId) -> None:
        try:
            asked = await self.inspections.take(inspection_id)
        except RedisUnavailable:  # the front end gets no answer, and asks again
            return
        if asked is None:
            return
        findings = await self._findings(asked)
        reason = findings.error.message if findings.error else None
        log.info("adapter_inspected", source=without_query(asked.source), refused=reason)
        await retry_until_available(lambda: self.inspections.answer(inspection_id, findings))

    async def _findings(self, asked: Inspection) -> Findings:
        try:
            async with self.uploads.fetched(asked.source), self.remote.reported(asked):
                threads = self.remote.threads_for(asked.source) or self.thread
                return await threads.run(lambda: self.inspect(asked))
        except StoreFailed as error:
            return Findings(error=JobError(code=ErrorCode.UNAVAILABLE, message=str(error)))
        except AdapterRejected as error:
            return Findings(error=JobError(code=ErrorCode.ADAPTER_REJECTED, message=str(error)))
