"""One machine, one command: Redis, a front end, the control process and workers."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import orjson

from ops.local.embedded_redis import EmbeddedRedis, start_redis
from ops.local.supervisor import Child, Show, Supervisor
from shared.api_keys import ApiKey
from shared.errors import SettingsError
from shared.settings import ENV_PREFIX, PoolSettings
from shared.store.connection import check_redis_at

API_DRAIN_S = 35.0
"""A little longer than the front end itself gives to running answers."""
CONTROL_DRAIN_S = 5.0
WORKER_EXIT_S = 10.0
"""From the end of a worker's own time for draining."""
POLL_S = 0.2
POLL_TIMEOUT_S = 5.0
REDIS_CHECK_S = 0.5
USUAL_REDIS_URL: str = PoolSettings.model_fields["redis_url"].default
"""Where the other commands look for Redis if nobody tells them."""

# A proxy of the environment would look for a loopback address on its own machine.
_direct = build_opener(ProxyHandler({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to run."""

    api: Sequence[str]
    """Words of the command line behind `lorikeet`; the others alike."""
    worker: Sequence[str]
    control: Sequence[str]
    num_workers: int
    api_keys: Sequence[ApiKey]
    metrics_key: str | None
    redis_url: str | None
    """None: start a Redis that ends with us."""
    is_strict: bool
    """Whether our own Redis syncs each write to its file, as `--durability strict` needs."""
    worker_drain_s: float
    url: str
    """Where the front end will answer."""


Announce = Callable[[list[str], str | None], None]
"""Takes what can be asked for, the base model first, and where our own Redis is, if there is one.

Called once requests are served.
"""


def run_plan(plan: Plan, show: Show, announce: Announce) -> None:
    """Run it until SIGINT or SIGTERM; every child has ended then.

    Raises:
        ChildRefused: a child refused its settings.
        RedisUnavailable: the Redis that was named can't be reached.
        SettingsError: there is no Redis to start, or it ended and doesn't start again.
    """
    own = own_redis(syncs_always=plan.is_strict)
    with nullcontext() if plan.redis_url else own as redis:
        asyncio.run(_run(plan, redis, show, announce))


async def _run(plan: Plan, redis: "OwnRedis | None", show: Show, announce: Announce) -> None:
    redis_url = redis.url if redis else plan.redis_url
    assert redis_url is not None
    await check_redis_at(redis_url)  # the children would say it again and again
    supervisor = Supervisor(_children(plan, redis_url, show))

    def stop() -> None:
        show("lorikeet", "stopping; running answers are finished first, Ctrl-C again ends at once")
        supervisor.stop()

    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop)
    watches = [redis.keep_running(show)] if redis else []
    ready = _announce_when_ready(
        plan.url, plan.api_keys, lambda names: announce(names, redis.url if redis else None)
    )
    await supervisor.run(ready, *watches)


def _children(plan: Plan, redis_url: str, show: Show) -> list[list[Child]]:
    # The front end ends first: running answers need the workers. Control hands on what they leave.
    env = {**os.environ, f"{ENV_PREFIX}REDIS_URL": redis_url}
    keys = [f"{key.tenant}:{key.secret}" for key in plan.api_keys]
    secrets = {"API_KEYS": " ".join(keys), "METRICS_KEY": plan.metrics_key or ""}
    env |= {f"{ENV_PREFIX}{name}": "" for name in secrets}
    api_env = {**env, **{f"{ENV_PREFIX}{name}": value for name, value in secrets.items()}}

    def child(
        name: str, words: Sequence[str], stop_timeout_s: float, env: Mapping[str, str] = env
    ) -> Child:
        # -P: a folder called `ops` where the user stands is not ours.
        argv = [sys.executable, "-P", "-m", "ops.cli", *words]
        return Child(name=name, argv=argv, env=env, stop_timeout_s=stop_timeout_s, show=show)

    worker_stop_s = plan.worker_drain_s + WORKER_EXIT_S
    return [
        [child("api", plan.api, API_DRAIN_S, api_env)],
        [child(name, plan.worker, worker_stop_s) for name in worker_names(plan.num_workers)],
        [child("control", plan.control, CONTROL_DRAIN_S)],
    ]


def worker_names(num_workers: int) -> list[str]:
    """What the workers are called in the log."""
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
    """What can be asked for; nothing before requests are served."""
    headers = {"Authorization": f"Bearer {keys[0].secret}"} if keys else {}
    is_ready = _get(Request(f"{url}/ready")) is not None
    models = _get(Request(f"{url}/v1/models", headers=headers)) if is_ready else None
    return [card["id"] for card in orjson.loads(models)["data"]] if models else []


def _get(request: Request) -> bytes | None:
    """The body of a successful reply, else None."""
    try:
        with _direct.open(request, timeout=POLL_TIMEOUT_S) as reply:
            body: bytes = reply.read()
            return body
    except (OSError, HTTPException):  # HTTP statuses are among the former
        return None


class OwnRedis:
    """A Redis server of our own, whose data outlive its crash."""

    def __init__(self, directory: Path, *, syncs_always: bool) -> None:
        self._directory = directory
        self._syncs_always = syncs_always
        self._server = self._start_near(USUAL_REDIS_URL)
        self.url = self._server.url

    async def keep_running(self, show: Show) -> None:
        """Start it again, on the same port, whenever it has ended.

        Raises:
            SettingsError: it doesn't start again.
        """
        while True:
            await asyncio.sleep(REDIS_CHECK_S)
            if not self._server.is_running:
                show("redis", "ended unexpectedly, starts again")
                self._server = self._start(self._server.port)

    def stop(self) -> None:
        """End it."""
        self._server.stop()

    def _start_near(self, url: str) -> EmbeddedRedis:
        """A server at `url` if its port is free, else at another one.

        Raises:
            SettingsError: no server program was found, or it doesn't start.
        """
        with suppress(SettingsError):
            return self._start(urlsplit(url).port)
        return self._start(None)

    def _start(self, port: int | None) -> EmbeddedRedis:
        return start_redis(self._directory, port=port, syncs_always=self._syncs_always)


@contextmanager
def own_redis(*, syncs_always: bool) -> Iterator[OwnRedis]:
    """A server in a folder of its own; both are gone afterwards.

    Raises:
        SettingsError: no server program was found, or it doesn't start.
    """
    with tempfile.TemporaryDirectory(prefix="lorikeet-redis-") as folder:
        redis = OwnRedis(Path(folder), syncs_always=syncs_always)
        try:
            yield redis
        finally:
            redis.stop()


def usable_port(host: str, port: int) -> int:
    """`port`, or a free one for 0.

    Raises:
        SettingsError: it can't be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as probe:
            chosen: int = probe.getsockname()[1]
            return chosen
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError(f"--port: can't listen on {host}:{port}: {reason}") from None
