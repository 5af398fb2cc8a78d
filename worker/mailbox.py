"""Reads and dispatches a worker's mail: the messages that other processes send to it."""

import asyncio

from shared.errors import RedisUnavailable
from shared.protocol.queue_replies import Mail, MailKind
from shared.store.jobs.queue import Queue
from shared.store.redis.retry import MAX_DELAY_S
from worker.adapters.actors import Adapters
from worker.jobs.consumer import Consumer
from worker.lease import Lease

WAIT_S = 1.0
"""Maximum seconds to wait for one message. After a lost lease, the worker has a new mailbox."""


class Mailbox:
    """Receives the messages of front ends, the control process and other workers."""

    def __init__(self, queue: Queue, lease: Lease, consumer: Consumer, adapters: Adapters) -> None:
        """Create the mailbox of the worker id in `lease`."""
        self._queue = queue
        self._lease = lease
        self._consumer = consumer
        self._adapters = adapters

    async def run(self) -> None:
        """Read and dispatch mail until cancelled. While Redis is unavailable, wait for it."""
        while True:
            await self._lease.is_held.wait()
            try:
                mail = await self._queue.wait(self._lease.wid, timeout_s=WAIT_S)
            except RedisUnavailable:
                await asyncio.sleep(MAX_DELAY_S)
                continue
            if mail:
                self._handle(mail)

    def _handle(self, mail: Mail) -> None:
        match mail:
            case Mail(kind=MailKind.JOB):
                self._consumer.wake()
            case Mail(kind=MailKind.CANCEL, job=job) if job:
                self._consumer.cancel(job)
            case Mail(kind=MailKind.INSPECT, inspection=inspection) if inspection:
                self._adapters.inspector.accept(inspection)
