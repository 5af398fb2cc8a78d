"""Runs Redis, a front end, the control process and workers on one machine."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ops.local.data_folder import locked_folder
from ops.local.direct_http import get
from ops.local.own_redis import OwnRedis, own_redis
from ops.local.precedence import take_precedence
from ops.local.process_output import StartOutput
from ops.local.starting_pool import StartingPool, starting_pool
from ops.local.supervisor import HEALTHY_AFTER_S, Child, Show, Supervisor
from shared.api_keys import ApiKey
from shared.errors import RedisUnavailable
from shared.settings import ENV_PREFIX
from shared.store.redis.connection import check_redis_at
from shared.store.views.starts import StartStep

API_EXIT_S = 5.0
"""Maximum seconds for the front end to exit after its drain time."""
CONTROL_DRAIN_S = 5.0
WORKER_EXIT_S = 10.0
"""Maximum seconds for a worker to exit after its drain time."""
WEBHOOK_SECRET = "WEBHOOK_SECRET"
"""Name, without its prefix, of a variable that only the control process gets."""
START_S = 10.0
"""Maximum seconds until the front end and the control process have started or failed."""
POLL_S = 0.2


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
    control_variables: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables of the control process: a secret, and settings of front ends
    that also apply to batches."""
    redis_url: str | None
    """URL of the Redis to use. If it is None, `run_plan` starts a Redis and stops it at the end."""
    is_strict: bool
    """Whether a Redis started by this process syncs each write, for `--durability strict`."""
    data_folder: Path | None = None
    """Folder for the data of a Redis started by this process. If it is None, the data are deleted
    at the end."""
    model: str = ""
    """Folder of the base model, or its name if its engine reads no files."""
    pool: str = "main"
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Sources of the adapters that the workers start with, by name."""
    drain_s: float
    """Maximum seconds that running answers continue after SIGTERM, in front end and workers."""
    url: str
    """URL at which the front end will answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """State of the server when it begins to answer requests."""

    names: Sequence[str]
    """Names of the models, with the base model first."""
    redis_url: str | None
    """URL of the Redis that this process started, without its password, or None if it started no
    Redis."""
    notes: Sequence[str]
    """A line for each adapter that isn't served as the settings say."""


Announce = Callable[[Ready], None]
"""Function that announces that the server is ready."""


def run_plan(plan: Plan, output: StartOutput, announce: Announce) -> None:
    """Run the processes until SIGINT or SIGTERM. On return, all children have ended.

    `output` shows the lines of all processes.

    Raises:
        ChildRefused: a child refused its settings, model or adapters.
        ChildFailed: a child has failed several times in the same way.
        RedisUnavailable: the Redis at the plan's URL can't be reached.
        SettingsError: the plan has no Redis URL, and a Redis can't be started or restarted; or the
            data folder can't be used.
    """
    take_precedence()
    with ExitStack() as stack:
        redis = None
        if plan.redis_url is None:
            folder = plan.data_folder
            data = stack.enter_context(locked_folder(folder)) if folder else None
            redis = stack.enter_context(own_redis(data, syncs_always=plan.is_strict))
        asyncio.run(_run(plan, redis, output, announce))


async def _run(plan: Plan, redis: OwnRedis | None, output: StartOutput, announce: Announce) -> None:
    redis_url = redis.url if redis else plan.redis_url
    assert redis_url is not None
    await check_redis_at(redis_url)  # otherwise each child would report the failure repeatedly
    async with starting_pool(redis_url, plan.pool, plan.adapters) as pool:
        if redis:  # no other process uses the pool
            await pool.begin()
        await _supervise(plan, redis, redis_url, pool, output, announce)


async def _supervise(
    plan: Plan,
    redis: OwnRedis | None,
    redis_url: str,
    pool: StartingPool,
    output: StartOutput,
    announce: Announce,
) -> None:
    show = output.show
    supervisor = Supervisor(_children(plan, redis_url, pool.never_started, show))

    def stop() -> None:
        again = "; press Ctrl-C again to stop at once" if sys.stderr.isatty() else ""
        show("lorikeet", f"stopping once running answers have ended{again}")
        supervisor.stop()

    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop)
    watches = [redis.keep_running(show)] if redis else []
    own_url = redis.public_url if redis else None

    async def ready() -> None:
        names = await _names_when_ready(plan.url, pool, output.show_step)
        output.show_step(None)
        if redis:  # no other process uses the pool
            unloaded = await pool.leave_out(output.left_out)
            names = [name for name in names if name not in unloaded]
        notes = [*await pool.notes(), *output.left_out_notes]
        announce(Ready(names=names, redis_url=own_url, notes=notes))

    await supervisor.run(ready(), *watches)


def _children(
    plan: Plan, redis_url: str, is_to_blame: Callable[[int], Awaitable[bool]], show: Show
) -> list[list[Child]]:
    # The front end stops first, because its running answers need the workers. The control process
    # stops last, because it requeues the jobs that workers leave unfinished.
    env = {**os.environ, f"{ENV_PREFIX}REDIS_URL": redis_url}
    keys = [f"{key.tenant}:{key.secret}" for key in plan.api_keys]
    secrets = {"API_KEYS": " ".join(keys), "METRICS_KEY": plan.metrics_key or ""}
    env |= {f"{ENV_PREFIX}{name}": "" for name in (*secrets, WEBHOOK_SECRET)}
    control_env = {**env, **plan.control_variables}
    api_env = {**env, **{f"{ENV_PREFIX}{name}": value for name, value in secrets.items()}}

    def child(
        name: str,
        words: Sequence[str],
        stop_timeout_s: float,
        start_s: float,
        env: Mapping[str, str] = env,
    ) -> Child:
        return Child(
            name=name,
            argv=lorikeet_argv(*words),
            env=env,
            stop_timeout_s=stop_timeout_s,
            start_s=start_s,
            show=show,
            is_to_blame=is_to_blame,
        )

    api_stop_s, worker_stop_s = plan.drain_s + API_EXIT_S, plan.drain_s + WORKER_EXIT_S
    return [
        [child("api", plan.api, api_stop_s, START_S, api_env)],
        [
            child(name, words, worker_stop_s, HEALTHY_AFTER_S)
            for name, words in zip(worker_names(len(plan.workers)), plan.workers, strict=True)
        ],
        [child("control", plan.control, CONTROL_DRAIN_S, START_S, control_env)],
    ]


def lorikeet_argv(*words: str) -> list[str]:
    """Return the command that runs `lorikeet WORDS` with this interpreter."""
    # -P prevents the import of another package called `ops` from the working directory.
    return [sys.executable, "-P", "-m", "ops.cli", *words]


def worker_names(num_workers: int) -> list[str]:
    """Return the names that identify the workers' lines in the output."""
    return [f"worker-{i}" for i in range(1, num_workers + 1)]


async def _names_when_ready(
    url: str, pool: StartingPool, show_step: Callable[[StartStep | None], None]
) -> Sequence[str]:
    """Wait until a worker and the server are ready. Return the models' names from Redis.

    `show_step` is called with what the worker does meanwhile.
    """
    names: list[str] = []
    while not names:
        await asyncio.sleep(POLL_S)
        with suppress(RedisUnavailable):
            show_step(await pool.start_step())
            if await pool.has_worker() and await asyncio.to_thread(_is_ready, url):
                names = await pool.names()
    return names


def _is_ready(url: str) -> bool:
    return get(f"{url}/ready/worker") is not None
