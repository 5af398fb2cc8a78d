"""Reads the adapters in a worker's settings. There may be thousands of them."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import structlog

from worker.adapters.source.checked_adapter import AdapterWeights, CheckedAdapter

log = structlog.get_logger()

PROGRESS_S = 5.0
"""Minimum seconds between two log lines that report progress."""
MAX_SHARED_BYTES = 256 << 20
"""Maximum memory, in bytes, for adapters that are kept for later names with the same source.

The files of a kept adapter need not be read again.
"""


async def read_each(
    sources: Mapping[str, str],
    read: Callable[[str, str], Awaitable[CheckedAdapter[AdapterWeights]]],
) -> AsyncIterator[CheckedAdapter[AdapterWeights]]:
    """Yield the adapters of `sources` in order.

    `sources` maps each name to a folder or hub id. If several names have the same source, its
    files are read only once, and the adapter stays in memory for the later names. Files are read
    again if the adapters that are kept in this way would exceed MAX_SHARED_BYTES.

    Raises:
        AdapterRejected: an adapter can't be served.
    """
    num_left = Counter(sources.values())
    shared: dict[str, CheckedAdapter[AdapterWeights]] = {}
    num_bytes = 0
    reported_s = time.monotonic()
    for number, (name, source) in enumerate(sources.items()):
        if time.monotonic() - reported_s > PROGRESS_S:
            log.info("adapters_read", number=number, of=len(sources))
            reported_s = time.monotonic()
        first = shared.get(source)
        adapter = first.named(name) if first else await read(name, source)
        num_left[source] -= 1
        size = adapter.weights.num_bytes
        if first and not num_left[source]:
            num_bytes -= shared.pop(source).weights.num_bytes
        elif not first and num_left[source] and num_bytes + size <= MAX_SHARED_BYTES:
            shared[source] = adapter
            num_bytes += size
        yield adapter
