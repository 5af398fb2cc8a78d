"""The pool under test: Redis with Sentinels, workers, front ends, and a control process."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx

from ops.lab.chaos.cluster.clock import build_clock_library
from ops.lab.chaos.cluster.commands import api_words, pool_words, worker_argv, worker_words
from ops.lab.chaos.cluster.redis_server import LOOPBACK
from ops.lab.chaos.cluster.replicated import Replicated
from ops.lab.chaos.cluster.supervised import Supervised
from ops.lab.chaos.network.own_namespace import ADDRESS
from ops.lab.chaos.network.remote_host import RemoteHost
from ops.lab.chaos.options import Options
from ops.lab.chaos.polling import until
from ops.lab.server_processes import clean_environment
from ops.local.ports import free_port
from ops.local.up import lorikeet_argv
from shared.cancel_tasks import cancel_tasks
from shared.errors import RedisUnavailable
from shared.store.redis.connection import connect
from shared.store.redis.keys import Keys
from shared.store.views.pool_views import PoolViews, WorkerView

NUM_SERVERS = 3
"""Number of Redis servers: a master and two replicas. Sentinel may promote either replica."""
NUM_SENTINELS = 3
DOWN_AFTER_MS = 2000
START_S = 120.0
READY_TIMEOUT_S = 2.0
REDIS_TIMEOUT_S = 2.0


class Api(Supervised):
    """A front end."""

    def __init__(self, name: str, argv: Sequence[str], log: Path, url: str) -> None:
        super().__init__(name, argv, clean_environment(), log)
        self.url = url

    async def is_ready(self) -> bool:
        """Return whether the front end reports that the pool can serve."""
        try:
            async with httpx.AsyncClient(timeout=READY_TIMEOUT_S, trust_env=False) as http:
                return (await http.get(f"{self.url}/ready/worker")).status_code == 200
        except httpx.HTTPError:
            return False


class Pool:
    """All processes of the pool. They are started again whenever they end."""

    def __init__(
        self, options: Options, folder: Path, servers: Replicated, hosts: Sequence[RemoteHost]
    ) -> None:
        self.options = options
        self.folder = folder
        self.servers = servers
        self.hosts = hosts
        """Hosts of the first worker and first front end; empty without a network namespace."""
        self.redis = connect(servers.url, timeout_s=REDIS_TIMEOUT_S)
        self.keys = Keys("main")
        self.views = PoolViews(self.redis, self.keys)
        self.workers = [self._worker(number) for number in range(options.workers)]
        self.apis = [self._api(number) for number in range(options.apis)]
        self.control = Supervised(
            "control",
            lorikeet_argv("control", *pool_words(options, servers.url)),
            clean_environment(),
            folder / "control.log",
        )
        self._running: list[asyncio.Task[None]] = []

    @classmethod
    async def start(cls, options: Options, folder: Path, *, has_network: bool) -> "Pool":
        """Start all processes, and return when all front ends and workers are ready.

        Args:
            options: settings of the run.
            folder: folder of data and logs.
            has_network: whether this process has a network namespace of its own, and so can run
                one worker and one front end on remote hosts.

        Raises:
            NotInTime: a part didn't become ready. The logs are in `folder`.
            SettingsError: a program is missing.
        """
        servers = await Replicated.start(
            folder / "redis",
            servers=NUM_SERVERS,
            sentinels=NUM_SENTINELS,
            aof=True,
            host=ADDRESS if has_network else LOOPBACK,
            down_after_ms=DOWN_AFTER_MS,
            clock_library=build_clock_library(folder),
        )
        hosts = [RemoteHost(1), RemoteHost(2)] if has_network else []
        for host in hosts:
            await host.start()
        pool = cls(options, folder, servers, hosts)
        pool._running = [asyncio.create_task(each.keep_running()) for each in pool.processes]
        try:
            await until(
                pool.is_whole, f"all processes are ready (logs: {folder})", within_s=START_S
            )
        except BaseException:
            await pool.stop()
            raise
        return pool

    @property
    def processes(self) -> list[Supervised]:
        """Workers, front ends and the control process."""
        return [*self.workers, *self.apis, self.control]

    async def is_whole(self) -> bool:
        """Return whether all workers are registered and all front ends are ready."""
        views = [await self.view_of(worker) for worker in self.workers]
        return all(views) and all([await api.is_ready() for api in self.apis])

    async def view_of(self, worker: Supervised) -> WorkerView | None:
        """Return the pool's view of `worker`.

        Return None if the pool doesn't know the worker, or if Redis is unavailable.
        """
        try:
            views = await self.views.workers()
        except RedisUnavailable:
            return None
        return next((view for view in views if pid_of(view) == worker.pid), None)

    async def stop(self) -> None:
        """Stop all processes of the pool."""
        await asyncio.gather(*(each.stop() for each in self.processes))
        await cancel_tasks(*self._running)
        await self.redis.aclose()
        for host in self.hosts:
            await host.stop()
        self.servers.stop()

    def _worker(self, number: int) -> Supervised:
        words = [*worker_words(self.options, number), *pool_words(self.options, self.servers.url)]
        argv = worker_argv(*words)
        if number == 0 and self.hosts:
            argv = self.hosts[0].command(argv)
        name = f"worker-{number}"
        return Supervised(name, argv, clean_environment(), self.folder / f"{name}.log")

    def _api(self, number: int) -> Api:
        is_remote = number == 0 and bool(self.hosts)
        here = ADDRESS if self.hosts else LOOPBACK
        address, port = self.hosts[1].address if is_remote else here, free_port()
        words = api_words(self.options, address, port)
        argv = lorikeet_argv(*words, *pool_words(self.options, self.servers.url))
        if is_remote:
            argv = self.hosts[1].command(argv)
        name = f"api-{number}"
        return Api(name, argv, self.folder / f"{name}.log", f"http://{address}:{port}")


def pid_of(view: WorkerView) -> int:
    """Return the process id of a worker of this machine."""
    return int(view.id.split(":")[1])
