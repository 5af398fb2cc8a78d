"""A worker that inspects adapters as real ones do, with a scripted resolver. It runs no jobs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import torch
from api_support import ScriptedWorker, register_models, running_app

from shared.cancel_tasks import cancel_tasks
from shared.guarded_fetch.pinned_connection import AddressCheck
from shared.settings import ApiSettings
from shared.store.adapters.fetch_progress import StagingProgress
from shared.store.adapters.inspections import Inspections
from shared.store.adapters.registry import Registry
from shared.store.adapters.uploads import Uploads
from shared.store.jobs.queue import Queue
from shared.store.redis.connection import Redis
from shared.store.redis.keys import Keys
from worker.adapters.disk_store import AdapterStore
from worker.adapters.loader_threads import LoaderThreads
from worker.adapters.remote.stager import Stager
from worker.adapters.source.allowed_sources import AdapterRoots
from worker.adapters.source.inspector import Inspector
from worker.adapters.source.interface import CheckedAdapter
from worker.adapters.source.reader import AdapterReader, Read
from worker.adapters.source.remote_reads import MAX_STAGING, RemoteReads
from worker.adapters.source.upload_fetcher import UploadFetcher
from worker.lora.base.modules import BaseModules
from worker.lora.checkpoint.adapter import Digests, read_checkpoint
from worker.lora.checkpoint.adapter_files import AdapterFiles
from worker.text.prompt_style import BASE_STYLE

MIB = 1 << 20


def source_reader(
    base: BaseModules,
    store: AdapterStore,
    roots: Sequence[str],
    addresses: AddressCheck,
    *,
    read: Read | None = None,
    at_start: Sequence[str] = (),
    max_bytes: int = 24 * MIB,
    time_limit_s: float = 20,
) -> AdapterReader:
    """Return the reader of a worker for one base model."""

    def read_here(
        name: str, files: AdapterFiles, *, checked: Digests | None = None
    ) -> CheckedAdapter:
        weights = read_checkpoint(name, files, base, dtype=torch.float32, checked=checked)
        return CheckedAdapter(weights, BASE_STYLE)

    allowed = AdapterRoots(roots, at_start)
    stager = Stager(store, allowed.urls, addresses, max_bytes=max_bytes, time_limit_s=time_limit_s)
    return AdapterReader(
        read or read_here,
        base=base,
        store=store,
        roots=allowed,
        stager=stager,
        dtype=torch.float32,
        max_bytes=64 * MIB,
    )


@asynccontextmanager
async def source_worker(
    redis: Redis, keys: Keys, reader: AdapterReader, store: AdapterStore
) -> AsyncIterator[ScriptedWorker]:
    """Run a worker that answers inspections with `reader`."""
    queue = Queue(redis, keys)
    worker = await ScriptedWorker.start(queue)
    local, remote = (_threads(number) for number in (1, MAX_STAGING))
    inspector = Inspector(
        Inspections(redis, keys),
        reader.inspect,
        local,
        UploadFetcher(Uploads(redis, keys), store),
        RemoteReads(remote, StagingProgress(redis, keys), reader.stager),
    )

    async def receive() -> None:
        while True:
            mail = await queue.wait(worker.id, timeout_s=0.5)
            if mail and mail.inspection:
                inspector.accept(mail.inspection)

    tasks = [asyncio.create_task(receive()), asyncio.create_task(inspector.run())]
    yield worker
    await cancel_tasks(*tasks)
    local.close()
    remote.close()


@asynccontextmanager
async def front_end(
    redis: Redis, keys: Keys, redis_url: str, reader: AdapterReader, store: AdapterStore
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a front end whose pool has such a worker."""
    await register_models(Registry(redis, keys))
    settings = ApiSettings(redis_url=redis_url, pool=keys.pool)
    async with (
        source_worker(redis, keys, reader, store),
        running_app(settings) as app,
        httpx.AsyncClient(base_url=app.url, timeout=60) as client,
    ):
        yield client


def _threads(number: int) -> LoaderThreads:
    return LoaderThreads(number, spare_cores=lambda: None, is_engine_busy=lambda: False)


def tree(folder: Path) -> dict[str, int]:
    """Return the size of each file and folder below `folder`, by path."""
    return {str(path): path.lstat().st_size for path in folder.rglob("*")}
