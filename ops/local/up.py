"""Runs Redis, a front end, the control process and workers on one machine."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from ops.local.direct_http import get
from ops.local.embedded_redis import EmbeddedRedis, start_redis
from ops.local.supervisor import Child, Show, Supervisor
from shared.api_keys import ApiKey
from shared.errors import SettingsError
from shared.settings import ENV_PREFIX, PoolSettings
from shared.store.connection import check_redis_at

API_EXIT_S = 5.0
"""Maximum seconds for the front end to exit after its drain time."""
CONTROL_DRAIN_S = 5.0
WORKER_EXIT_S = 10.0
"""Maximum seconds for a worker to exit after its drain time."""
POLL_S = 0.2
REDIS_CHECK_S = 0.5
DEFAULT_REDIS_URL: str = PoolSettings.model_fields["redis_url"].default
"""URL of the Redis that commands such as `lorikeet queue` use by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Processes to run, with their settings."""

    api: Sequence[str]
    """Arguments of the front end's `lorikeet` command."""
    workers: Sequence[Sequence[str]]
    """Arguments of each worker's `lorikeet` command, with the worker's device."""
    control: Sequence[str]
    """Arguments of the control process's `lorikeet` command."""
    api_keys: Sequence[ApiKey]
    metrics_key: str | None
    redis_url: str | None
    """URL of the Redis to use. If it is None, `run_plan` starts a Redis and stops it at the end."""
    is_strict: bool
    """Whether a Redis started by this process syncs each write, for `--durability strict`."""
    drain_s: float
    """Seconds that running answers have to finish after SIGTERM, in front end and workers."""
    url: str
    """URL at which the front end will answer."""


Announce = Callable[[list[str], str | None], None]
"""Function that announces that the server is ready.

The first argument is the names of the models, with the base model first. The second is the URL of
the Redis that this process started, or None if this process started no Redis.
"""


def run_plan(plan: Plan, show: Show, announce: Announce) -> None:
    """Run the processes until SIGINT or SIGTERM. On return, all children have ended.

    Raises:
        ChildRefused: a child refused its settings, model or adapters.
        RedisUnavailable: the Redis at the plan's URL can't be reached.
        SettingsError: the plan has no Redis URL, and a Redis can't be started or restarted.
    """
    own = own_redis(syncs_always=plan.is_strict)
    with nullcontext() if plan.redis_url else own as redis:
        asyncio.run(_run(plan, redis, show, announce))


async def _run(plan: Plan, redis: "OwnRedis | None", show: Show, announce: Announce) -> None:
    redis_url = redis.url if redis else plan.redis_url
    assert redis_url is not None
    await check_redis_at(redis_url)  # otherwise each child would report the failure repeatedly
    supervisor = Supervisor(_children(plan, redis_url, show))

    def stop() -> None:
        show(
            "lorikeet",
            "stopping once running answers have ended; press Ctrl-C again to stop at once",
        )
        supervisor.stop()

    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop)
    watches = [redis.keep_running(show)] if redis else []
    ready = _announce_when_ready(
        plan.url, plan.api_keys, lambda names: announce(names, redis.url if redis else None)
    )
    await supervisor.run(ready, *watches)


def _children(plan: Plan, redis_url: str, show: Show) -> list[list[Child]]:
    # The front end stops first, because its running answers need the workers. The control process
    # stops last, because it requeues the jobs that workers leave unfinished.
    env = {**os.environ, f"{ENV_PREFIX}REDIS_URL": redis_url}
    keys = [f"{key.tenant}:{key.secret}" for key in plan.api_keys]
    secrets = {"API_KEYS": " ".join(keys), "METRICS_KEY": plan.metrics_key or ""}
    env |= {f"{ENV_PREFIX}{name}": "" for name in secrets}
    api_env = {**env, **{f"{ENV_PREFIX}{name}": value for name, value in secrets.items()}}

    def child(
        name: str, words: Sequence[str], stop_timeout_s: float, env: Mapping[str, str] = env
    ) -> Child:
        return Child(
            name=name, argv=lorikeet_argv(*words), env=env, stop_timeout_s=stop_timeout_s, show=show
        )

    api_stop_s, worker_stop_s = plan.drain_s + API_EXIT_S, plan.drain_s + WORKER_EXIT_S
    return [
        [child("api", plan.api, api_stop_s, api_env)],
        [
            child(name, words, worker_stop_s)
            for name, words in zip(worker_names(len(plan.workers)), plan.workers, strict=True)
        ],
        [child("control", plan.control, CONTROL_DRAIN_S)],
    ]


def lorikeet_argv(*words: str) -> list[str]:
    """Return the command that runs `lorikeet WORDS` with this interpreter."""
    # -P prevents the import of another package called `ops` from the working directory.
    return [sys.executable, "-P", "-m", "ops.cli", *words]


def worker_names(num_workers: int) -> list[str]:
    """Return the names that identify the workers' lines in the output."""
    return [f"worker-{i}" for i in range(1, num_workers + 1)]


async def _announce_when_ready(
    url: str, keys: Sequence[ApiKey], announce: Callable[[list[str]], None]
) -> None:
    names: list[str] = []
    while not names:
        await asyncio.sleep(POLL_S)
        names = await asyncio.to_thread(_served_names, url, keys)
    announce(names)


def _served_names(url: str, keys: Sequence[ApiKey]) -> list[str]:
    """Return the names of the served models, or no names until the server is ready."""
    headers = {"Authorization": f"Bearer {keys[0].secret}"} if keys else {}
    is_ready = get(f"{url}/ready") is not None
    models = get(f"{url}/v1/models", headers) if is_ready else None
    return [card["id"] for card in orjson.loads(models)["data"]] if models else []


class OwnRedis:
    """A Redis server that this process owns. If the server ends, it is restarted with its data."""

    def __init__(self, directory: Path, *, syncs_always: bool) -> None:
        self._directory = directory
        self._syncs_always = syncs_always
        self._server = self._start_near(DEFAULT_REDIS_URL)
        self.url = self._server.url

    async def keep_running(self, show: Show) -> None:
        """Restart the server on the same port whenever it has ended.

        Raises:
            SettingsError: the server doesn't start.
        """
        while True:
            await asyncio.sleep(REDIS_CHECK_S)
            if not self._server.is_running:
                show("redis", "ended unexpectedly, restarts")
                self._server = self._start(self._server.port)

    def stop(self) -> None:
        """Stop the server."""
        self._server.stop()

    def _start_near(self, url: str) -> EmbeddedRedis:
        """Start a server on the port of `url`, or on a free port if that port is in use.

        Raises:
            SettingsError: no server program is found, or the server doesn't start.
        """
        with suppress(SettingsError):
            return self._start(urlsplit(url).port)
        return self._start(None)

    def _start(self, port: int | None) -> EmbeddedRedis:
        return start_redis(self._directory, port=port, syncs_always=self._syncs_always)


@contextmanager
def own_redis(*, syncs_always: bool) -> Iterator[OwnRedis]:
    """Provide a Redis server that keeps its data in a temporary folder.

    After the block, the server is stopped and the folder is removed.

    Raises:
        SettingsError: no server program is found, or the server doesn't start.
    """
    with tempfile.TemporaryDirectory(prefix="lorikeet-redis-") as folder:
        redis = OwnRedis(Path(folder), syncs_always=syncs_always)
        try:
            yield redis
        finally:
            redis.stop()
