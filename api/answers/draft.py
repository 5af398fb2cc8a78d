"""Drafts: admitted requests whose jobs aren't enqueued yet."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from api.access.model_rights import check_model
from api.adapters.shadow_copies import SHADOWS_DEADLINE_S
from api.answers.admission import admission_to
from api.answers.parts import Intake
from api.requests.translate import Admission
from shared.errors import JobFailed, RegistryChanged
from shared.protocol.access.rights import Access
from shared.protocol.enqueue import Enqueued, EnqueueOptions
from shared.protocol.jobs import Job
from shared.store.adapters.candidates import SHADOW_TENANT
from shared.store.adapters.registry import Found

MAX_REMAKES = 3
"""Maximum number of times that a job is made again because the registry has changed.

The next attempt enqueues the job even if the registry changes once more.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A request, and the functions that make its job again if the registry changes."""

    model: str
    """Name of the model in the request."""
    key: str
    """Key that decides whether a candidate version of the model answers the request."""
    job_of: Callable[[Admission], Job]
    """Makes a job of the request."""
    accept: Callable[[Job], Job]
    """Describes the job in the trace of the request, and returns the job with this trace."""


class Draft:
    """Admitted request. Its job is enqueued later.

    The job is made for a model that may come from the cache. If the registry has changed since
    then, the job is made again, with the same id.
    """

    def __init__(
        self,
        intake: Intake,
        access: Access,
        found: Found,
        admission: Admission,
        wanted: Wanted,
        options: EnqueueOptions,
    ) -> None:
        self._intake = intake
        self._found = found
        self._admission = admission
        self._wanted = wanted
        self.access = access
        self.options = options
        self.job = wanted.accept(wanted.job_of(admission))
        """Job of the request. `enqueue` may replace it."""

    @classmethod
    async def of(
        cls,
        intake: Intake,
        access: Access,
        wanted: Wanted,
        options: EnqueueOptions,
        *,
        deadline_s: float | None = None,
    ) -> "Draft":
        """Admit a request, and make its job.

        `access` has the rights of the request. `deadline_s` is the client's time limit in seconds;
        None selects the server's limit.

        Raises:
            JobFailed: the request is invalid, or its model can't serve it.
            RedisUnavailable: the registry can't be read.
        """

        def made(found: Found) -> Draft:
            serving = found.canary_for(wanted.key)
            admission = admission_to(serving, intake, access.tenant, model, deadline_s=deadline_s)
            return cls(intake, access, found, admission, wanted, options)

        model = wanted.model
        await check_model(intake.registry, access, model)
        if remembered := intake.models.remembered(model):
            with suppress(JobFailed):  # the remembered model may be outdated, so read it below
                return made(remembered)
        return made(await intake.models.read(model))

    async def enqueue(self) -> Enqueued:
        """Enqueue the job, or find the job of an earlier request with the same idempotency key.

        Raises:
            JobFailed: the request is invalid for the model's current version, or the model can't
                serve it.
            QueueFull: a limit of the queue is reached.
            RateLimited: a limit of the API key is reached.
            RedisUnavailable: Redis may or may not have accepted the job.
        """
        async with self._intake.turns.turn(self.access.tenant):
            enqueued = await self._enqueue_latest()
        if enqueued.is_new:
            self._start_shadow()
        return enqueued

    async def _enqueue_latest(self) -> Enqueued:
        for _ in range(MAX_REMAKES):
            try:
                return await self._enqueue(self._found.revision)
            except RegistryChanged:
                await self._remake()
        # The registry keeps changing, so accept a version that was current a moment ago.
        return await self._enqueue("")

    async def _enqueue(self, registry_revision: str) -> Enqueued:
        return await self._intake.queue.enqueue(
            self.job,
            self._intake.limits,
            options=self.options,
            registry_revision=registry_revision,
        )

    async def _remake(self) -> None:
        """Make the job again for the current version of the model. The job keeps its id."""
        model, old = self._wanted.model, self._admission
        found = await self._intake.models.read(model)
        serving = found.canary_for(self._wanted.key)
        new = admission_to(serving, self._intake, old.tenant, model)
        self._admission = replace(
            new,
            id=old.id,
            created_s=old.created_s,
            deadline_ms=old.deadline_ms,
            random_seed=old.random_seed,
        )
        self._found = found
        self.job = self._wanted.accept(self._wanted.job_of(self._admission))

    def _start_shadow(self) -> None:
        """Enqueue a copy of the job for the adapter's shadow, if the shadow takes the request."""
        shadow = self._found.shadow_for(self._wanted.key)
        generates = self.job.embedding is None and self.job.scoring is None
        if shadow is None or self.job.is_preemptible or not generates:
            return
        admission = admission_to(
            shadow,
            self._intake,
            SHADOW_TENANT,
            self._wanted.model,
            deadline_s=SHADOWS_DEADLINE_S,
        )
        seed = self._admission.random_seed
        with suppress(JobFailed):  # the shadow may not support the request, for example its tools
            copy = self._wanted.job_of(replace(admission, random_seed=seed))
            self._intake.shadow_copies.start(
                self.job.id,
                replace(copy, is_preemptible=True),
                books_pool=self.access.books_pool,
            )
