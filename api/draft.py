"""Drafts: requests whose jobs aren't enqueued yet."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from api.admission import admission_to, check_model
from api.context import Context
from api.requests.translate import Admission
from shared.errors import JobFailed, RegistryChanged
from shared.protocol.access.rights import Access
from shared.protocol.enqueue import Enqueued, EnqueueOptions
from shared.protocol.jobs import Job
from shared.store.registry import Found

MAX_REMAKES = 3
"""Number of times that a job is made again before it is enqueued although the registry changed."""


class Draft:
    """Request whose job is enqueued later.

    The job is made of a model that may be remembered from an earlier request. If the registry has
    changed since then, the job is made again, with the same id.
    """

    def __init__(
        self,
        context: Context,
        access: Access,
        model: str,
        found: Found,
        admission: Admission,
        job_of: Callable[[Admission], Job],
        options: EnqueueOptions,
    ) -> None:
        self._context = context
        self._model = model
        self._revision = found.revision
        self._admission = admission
        self._job_of = job_of
        self.access = access
        self.options = options
        self.job = job_of(admission)
        """Job of the request. `enqueue` may replace it."""

    @classmethod
    async def of(
        cls,
        context: Context,
        access: Access,
        model: str,
        job_of: Callable[[Admission], Job],
        options: EnqueueOptions,
        *,
        deadline_s: float | None = None,
    ) -> "Draft":
        """Admit a request for `model`, and make its job.

        `access` has the rights of the request. `job_of` makes the job. `deadline_s` is that of
        `admission_to`.

        Raises:
            JobFailed: the request is invalid, or its model can't serve it.
            RedisUnavailable: the registry can't be read.
        """

        def made(found: Found) -> Draft:
            admission = admission_to(found, context, access.tenant, model, deadline_s=deadline_s)
            return cls(context, access, model, found, admission, job_of, options)

        check_model(access, model)
        if remembered := context.models.remembered(model):
            with suppress(JobFailed):  # the model as it is now may serve the request
                return made(remembered)
        return made(await context.models.read(model))

    async def enqueue(self) -> Enqueued:
        """Enqueue the job, or find the job of an earlier request with the same key.

        Raises:
            JobFailed: the request is invalid for the model as it is now, or its model can't serve
                it.
            QueueFull: a limit of the queue is reached.
            RateLimited: a limit of the API key is reached.
            RedisUnavailable: Redis may not have accepted the job.
        """
        async with self._context.turns.turn():
            for _ in range(MAX_REMAKES):
                try:
                    return await self._enqueue(self._revision)
                except RegistryChanged:
                    await self._remake()
            # The registry changes all the time. The job's version was current a moment ago.
            return await self._enqueue("")

    async def _enqueue(self, registry_revision: str) -> Enqueued:
        return await self._context.queue.enqueue(
            self.job,
            self._context.limits,
            options=self.options,
            registry_revision=registry_revision,
        )

    async def _remake(self) -> None:
        """Make the job of the model as it is now, with the id of the job that was refused."""
        found, old = await self._context.models.read(self._model), self._admission
        new = admission_to(found, self._context, old.tenant, self._model)
        self._admission = replace(
            new,
            id=old.id,
            created_s=old.created_s,
            deadline_ms=old.deadline_ms,
            random_seed=old.random_seed,
        )
        self._revision = found.revision
        self.job = self._job_of(self._admission)
