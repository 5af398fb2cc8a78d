"""Reads and checks adapters for front ends, which can't."""

import asyncio
from collections.abc import Callable

import structlog

from shared.errors import RedisUnavailable
from shared.protocol.ids import InspectionId
from shared.store.inspections import Findings, Inspection, Inspections
from worker.adapters.loader_threads import LoaderThreads
from worker.redis_retry import until_redis_is_back

log = structlog.get_logger()


class Inspector:
    """Answers inspections, one at a time and off the event loop."""

    def __init__(
        self,
        inspections: Inspections,
        inspect: Callable[[Inspection], Findings],
        thread: LoaderThreads,
    ) -> None:
        """Answer with what `inspect` finds, which blocks; `thread` is one, for nothing else."""
        self._inspections = inspections
        self._inspect = inspect
        self._thread = thread
        self._asked: asyncio.Queue[InspectionId] = asyncio.Queue()

    def accept(self, inspection_id: InspectionId) -> None:
        """Take an inspection that the mailbox named."""
        self._asked.put_nowait(inspection_id)

    async def run(self) -> None:
        """Answer until cancelled."""
        async with asyncio.TaskGroup() as answers:
            while True:
                answers.create_task(self._answer(await self._asked.get()))

    async def _answer(self, inspection_id: InspectionId) -> None:
        try:
            asked = await self._inspections.take(inspection_id)
        except RedisUnavailable:  # whoever asked hears nothing, and asks again
            return
        if asked is None:
            return
        findings = await self._thread.run(lambda: self._inspect(asked))
        reason = findings.error.message if findings.error else None
        log.info("adapter_inspected", source=asked.source, refused=reason)
        await until_redis_is_back(lambda: self._inspections.answer(inspection_id, findings))
