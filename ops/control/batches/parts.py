"""Objects that all batch turns of a control process share, and the window of each turn."""

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
"""Waiting batch requests for each sequence that the pool can run at once."""


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
    """Held for each step of the check of an input file, so that the checks take turns."""
    keep_s: int
    """Lifetime of output files and ended batches, in seconds."""
    announces: bool
    """Whether a webhook announces the ends of batches."""
    max_line_bytes: int


class Window:
    """Decides how many requests each batch keeps in the pool at a time.

    The number includes running and waiting requests.
    """

    def __init__(self, views: PoolViews) -> None:
        self._views = views
        self._total = CachedRead(self._measure)

    async def share(self, competition: Competition) -> int:
        """Return one turn's number of requests. Tenants, and turns of a tenant, share equally."""
        shares = competition.num_tenants * competition.num_turns
        return max(MIN_WINDOW, await self._total.get() // max(1, shares))

    async def _measure(self) -> int:
        slots = sum(worker.info.max_num_seqs for worker in await self._views.workers())
        return min(MAX_WINDOW, round(slots * (1 + WAITING_SHARE)))
