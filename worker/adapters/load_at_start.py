"""Reads the adapters that a worker is started with: thousands of them, maybe."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:  # it imports torch
    from worker.lora.checkpoint.adapter import LoRAAdapter

log = structlog.get_logger()

PROGRESS_S = 5.0
"""Between two lines of the log that say how far it is."""
MAX_SHARED_BYTES = 256 << 20
"""Of adapters that are kept in memory for their folders' next names."""


async def read_each(
    sources: Mapping[str, str],
    read: Callable[[str, str], Awaitable["LoRAAdapter"]],
    named: Callable[["LoRAAdapter", str], "LoRAAdapter"],
) -> AsyncIterator["LoRAAdapter"]:
    """The adapters of `sources`, names to folders, in that order; names may share a few folders.

    Raises:
        AdapterRejected: one can't be served.
    """
    num_left = Counter(sources.values())
    shared: dict[str, LoRAAdapter] = {}
    num_bytes = 0
    told_s = time.monotonic()
    for number, (name, source) in enumerate(sources.items()):
        if time.monotonic() - told_s > PROGRESS_S:
            log.info("adapters_read", number=number, of=len(sources))
            told_s = time.monotonic()
        first = shared.get(source)
        adapter = named(first, name) if first else await read(name, source)
        num_left[source] -= 1
        if first and not num_left[source]:
            num_bytes -= shared.pop(source).num_bytes
        elif not first and num_left[source] and num_bytes + adapter.num_bytes <= MAX_SHARED_BYTES:
            shared[source] = adapter
            num_bytes += adapter.num_bytes
        yield adapter
