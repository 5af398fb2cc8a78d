"""Tasks of the control process that need the front end's code: they run batches."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from ops.control.batches.supervisor import BatchSupervisor, batch_supervisor
from ops.control.batches.webhook import Webhook
from ops.control.file_sweep import FileSweep, file_sweep
from ops.control.process import MoreTasks
from ops.control.tasks import EVERY_10_S, EVERY_SECOND, ControlTask
from shared.settings import ControlSettings


def batch_tasks(settings: ControlSettings) -> MoreTasks:
    """Return the tasks that run batches. Without a file store, there are none.

    Raises:
        SettingsError: the webhook's settings contradict each other.
    """
    webhook = Webhook.of(settings)

    @asynccontextmanager
    async def tasks() -> AsyncIterator[Sequence[ControlTask]]:
        if settings.file_store is None:
            yield ()
            return
        async with batch_supervisor(settings) as supervisor, file_sweep(settings) as sweep:
            yield _tasks(supervisor, sweep, webhook)

    return tasks


def _tasks(
    supervisor: BatchSupervisor, sweep: FileSweep, webhook: Webhook | None
) -> list[ControlTask]:
    tasks = [
        ControlTask("start_batches", lambda _: supervisor.start_runs(), EVERY_SECOND, 10),
        ControlTask("sweep_files", lambda _: sweep.run(time.time()), EVERY_10_S, 60),
    ]
    if webhook:
        announce = webhook.announce
        tasks.append(
            ControlTask("call_webhook", lambda _: announce(supervisor.ends), EVERY_SECOND, 60)
        )
    return tasks
