"""The pools that one front end serves. Determines to which pool each request belongs."""

import time
from collections.abc import Sequence

from fastapi import Request

from api.http.canonical_path import POOL, POOLS_PATH
from api.pools.pool import Pool
from shared.errors import JobFailed, SettingsError
from shared.protocol.ids import job_id_of
from shared.settings import ApiSettings

MAX_AGE_S = 1.0
"""Seconds for which the pool of a model is remembered."""
MAX_MODELS = 4096
"""Maximum number of remembered models. When it is reached, all are forgotten."""
MODEL_PARAMS = "name", "model_id"
"""Parameters in the paths of routes that name a model."""
JOB_PARAMS = "job_id", "response_id"
"""Parameters in the paths of routes that name a job."""


def settings_of_pools(settings: ApiSettings) -> list[ApiSettings]:
    """Return a front end's settings for each of its pools.

    Each further pool has all routes under its own path.

    Raises:
        SettingsError: the first pool is also named as a further pool.
    """
    if settings.pool in settings.further_pools:
        raise SettingsError(f"--further-pools: {settings.pool} is the pool of --pool already")
    root = f"{settings.root_path}{POOLS_PATH}"
    return [settings] + [
        settings.model_copy(update={"pool": pool, "root_path": f"{root}{pool}"})
        for pool in settings.further_pools
    ]


class Pools:
    """Finds the pool that a request is for.

    A request whose path begins with `/pools/NAME` is for the pool NAME. Any other request is for
    the first pool that has its model or job. If no pool has it, the request is for the first pool.
    """

    def __init__(self, pools: Sequence[Pool]) -> None:
        """Create an object. The pools' names must differ. Earlier pools are preferred."""
        self.all = tuple(pools)
        self._by_name = {pool.name: pool for pool in pools}
        self._by_model: dict[str, tuple[float, Pool]] = {}

    async def of_request(self, request: Request) -> Pool:
        """Return the pool of a request whose path may name a pool, a model or a job.

        Raises:
            RedisUnavailable: the registry or the jobs can't be read.
        """
        if known := self._known(request):
            return known
        params = request.path_params
        if model := next((params[name] for name in MODEL_PARAMS if name in params), None):
            return await self._with_model(model)
        if job := next((params[name] for name in JOB_PARAMS if name in params), None):
            return await self._with_job(job)
        return self.all[0]

    async def of_model(self, request: Request, model: object) -> Pool:
        """Return the pool of a request whose body names a model.

        Raises:
            RedisUnavailable: the registry can't be read.
        """
        if known := self._known(request):
            return known
        return await self._with_model(model) if isinstance(model, str) else self.all[0]

    async def of_job(self, request: Request, job: str | None) -> Pool:
        """Return the pool of a request. `job` is the job that its body names, or None.

        Raises:
            RedisUnavailable: the jobs can't be read.
        """
        if known := self._known(request):
            return known
        return self.all[0] if job is None else await self._with_job(job)

    def shown_to(self, request: Request) -> Sequence[Pool]:
        """Return the pools whose models are listed in the response to a request."""
        known = self._known(request)
        return self.all if known is None else (known,)

    def _known(self, request: Request) -> Pool | None:
        """Return the only pool, or the pool that the request's path names, if any."""
        if len(self.all) == 1:
            return self.all[0]
        name = getattr(request.state, POOL, None)
        return None if name is None else self._by_name[name]

    async def _with_model(self, model: str) -> Pool:
        remembered = self._by_model.get(model)
        if remembered and time.monotonic() - remembered[0] < MAX_AGE_S:
            return remembered[1]
        started_s = time.monotonic()
        for pool in self.all:
            if await _has_model(pool, model):
                if len(self._by_model) >= MAX_MODELS:
                    self._by_model.clear()
                self._by_model[model] = started_s, pool
                return pool
        return await self._with_base(model.rpartition(":")[0])

    async def _with_base(self, name: str) -> Pool:
        """Return the pool whose base model has this name, or the first pool."""
        for pool in self.all if name else ():
            base = await pool.registry.base()
            if base and base.name == name:
                return pool
        return self.all[0]

    async def _with_job(self, job: str) -> Pool:
        for pool in self.all:
            if await pool.views.job_or_record(job_id_of(job)):
                return pool
        return self.all[0]


def pools_of(request: Request) -> Pools:
    """Return the pools of the app that serves a request."""
    pools: Pools = request.app.state.pools
    return pools


async def _has_model(pool: Pool, model: str) -> bool:
    try:
        found = pool.models.remembered(model) or await pool.models.read(model)
    except JobFailed:  # the adapter exists, but is quarantined
        return True
    return found.version is not None
