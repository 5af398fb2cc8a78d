"""Objects that all batch turns of a control process share.

One of them is the window. It limits how many unfinished requests a turn may have.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import FastAPI

from api.answers.in_process import Answering
from api.files.file_store import FileStore
from api.pools.pool_status import CachedRead
from shared.store.batches.batches import Batches, Competition
from shared.store.batches.files import StoredFiles
from shared.store.jobs.queue import Queue
from shared.store.views.pool_views import PoolViews

MIN_WINDOW = 4
MAX_WINDOW = 1024
WAITING_SHARE = 0.25
"""Number of batch requests that may wait, per sequence that the pool can run at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Objects that all batch turns of a control process share."""

    app: FastAPI
    """A front end's app for internal requests, already started."""
    answering: Mapping[str, Answering]
    """For each endpoint, the function that answers its requests."""
    store: FileStore
    files: StoredFiles
    batches: Batches
    queue: Queue
    window: "Window"
    checks: asyncio.Lock
    """Lock that a turn holds for each step of an input file's check, so that checks take turns."""
    keep_s: int
    """Lifetime of output files and ended batches, in seconds."""
    announces: bool
    """Whether a webhook announces the ends of batches."""
    max_line_bytes: int


class Window:
    """Decides how many unfinished requests each batch may have in the pool at a time.

    Running and waiting requests both count.
    """

    def __init__(self, views: PoolViews) -> None:
        self._views = views
        self._total = CachedRead(self._measure)

    async def share(self, competition: Competition) -> int:
        """Return how many unfinished requests one turn may have.

        Tenants with running turns get equal shares. The turns of a tenant divide its share equally.
        """
        shares = competition.num_tenants * competition.num_turns
        return max(MIN_WINDOW, await self._total.get() // max(1, shares))

    async def _measure(self) -> int:
        slots = sum(worker.info.max_num_seqs for worker in await self._views.workers())
        return min(MAX_WINDOW, round(slots * (1 + WAITING_SHARE)))
