"""Reads and dispatches a worker's mail: the messages that other processes send to it."""

import asyncio
from dataclasses import dataclass

from shared.errors import RedisUnavailable
from shared.protocol.queue_replies import Mail, MailKind
from shared.store.jobs.queue import Queue
from shared.store.redis.retry import MAX_DELAY_S
from worker.adapters.actors import Adapters
from worker.jobs.consumer import Consumer
from worker.lease import Lease

WAIT_S = 1.0
"""Maximum seconds of one wait for a message.

The wait is limited because the worker gets another mailbox when it loses its lease."""


@dataclass(frozen=True, slots=True, eq=False)
class Mailbox:
    """Receives the messages of front ends, the control process and other workers."""

    queue: Queue
    lease: Lease
    """Holds the id of the worker that owns the mailbox."""
    consumer: Consumer
    adapters: Adapters

    async def run(self) -> None:
        """Read and dispatch mail until cancelled. While Redis is unavailable, wait for it."""
        while True:
            await self.lease.is_held.wait()
            try:
                mail = await self.queue.wait(self.lease.wid, timeout_s=WAIT_S)
            except RedisUnavailable:
                await asyncio.sleep(MAX_DELAY_S)
                continue
            if mail:
                self._handle(mail)

    def _handle(self, mail: Mail) -> None:
        match mail:
            case Mail(kind=MailKind.JOB):
                self.consumer.wake()
            case Mail(kind=MailKind.CANCEL, job=job) if job:
                self.consumer.cancel(job)
            case Mail(kind=MailKind.INSPECT, inspection=inspection) if inspection:
                self.adapters.inspector.accept(inspection)
