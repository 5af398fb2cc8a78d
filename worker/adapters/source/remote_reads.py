"""Threads that read adapters from URLs, and reports of their progress to the front ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from shared.adapter_sources import is_remote
from shared.cancel_tasks import cancel_tasks
from shared.errors import RedisUnavailable
from shared.store.adapters.fetch_progress import StagingProgress
from shared.store.adapters.inspections import Inspection
from worker.adapters.loader_threads import LoaderThreads
from worker.adapters.remote.stager import Stager

MAX_STAGING = 4
"""Maximum number of adapters that a worker fetches from URLs at the same time. Others wait."""
REPORT_S = 0.5
"""Seconds between two reports of progress."""


@dataclass(frozen=True, slots=True, eq=False)
class RemoteReads:
    """Reads adapters from URLs on separate threads, so that other reads don't wait for them.

    Reports the progress of these reads.
    """

    threads: LoaderThreads
    progress: StagingProgress
    stager: Stager | None

    def threads_for(self, source: str) -> LoaderThreads | None:
        """Return the threads that read the adapter at a URL; None if `source` isn't a URL."""
        return self.threads if is_remote(source) else None

    @asynccontextmanager
    async def reported(self, asked: Inspection) -> AsyncIterator[None]:
        """While the block runs, report how far an adapter is fetched, if its source is a URL."""
        if self.stager is None or not is_remote(asked.source):
            yield
            return
        task = asyncio.create_task(self._report(self.stager, asked))
        try:
            yield
        finally:
            await cancel_tasks(task)
            with suppress(RedisUnavailable):  # then the progress expires
                await self.progress.end(asked.name)

    async def _report(self, stager: Stager, asked: Inspection) -> None:
        while True:
            if staging := stager.progress(asked.source):
                with suppress(RedisUnavailable):
                    await self.progress.report(asked.name, staging)
            await asyncio.sleep(REPORT_S)
