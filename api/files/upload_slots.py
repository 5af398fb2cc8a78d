"""Limits how many files a front end receives at the same time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import QueueFull, ReachedLimit

MAX_UPLOADS = 16
"""Number of uploads of one process. Each needs up to 3 MiB of memory."""
MAX_UPLOADS_TENANT = 4
"""Number of uploads of one tenant in one process."""


class UploadSlots:
    """Counts the uploads of one process by tenant."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()

    @contextmanager
    def hold(self, tenant: str) -> Iterator[None]:
        """Count an upload of the tenant during the block.

        Raises:
            QueueFull: the tenant, or all tenants together, have too many uploads.
        """
        if self._running[tenant] >= MAX_UPLOADS_TENANT:
            raise QueueFull(ReachedLimit.TENANT_UPLOADS, MAX_UPLOADS_TENANT)
        if self._running.total() >= MAX_UPLOADS:
            raise QueueFull(ReachedLimit.UPLOADS, MAX_UPLOADS)
        self._running[tenant] += 1
        try:
            yield
        finally:
            self._running[tenant] -= 1
            if not self._running[tenant]:
                del self._running[tenant]
