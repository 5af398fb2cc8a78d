"""Reads the adapters in a worker's settings. There may be thousands of them."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import structlog

from shared.adapter_flags import LEFT_OUT
from shared.errors import AdapterRejected, StoreFailed
from worker.adapters.source.interface import AdapterWeights, CheckedAdapter

log = structlog.get_logger()

PROGRESS_S = 5.0
"""Minimum seconds between two log lines that report progress."""
MAX_SHARED_BYTES = 256 << 20
"""Maximum memory, in bytes, for adapters that are kept for later names with the same source."""

Read = Callable[[str, str], Awaitable[CheckedAdapter[AdapterWeights]]]
"""Function that reads the adapter with the given name from the given source."""


async def read_each(
    sources: Mapping[str, str], read: Read, *, skips_bad: bool = False
) -> AsyncIterator[CheckedAdapter[AdapterWeights]]:
    """Yield the adapters of `sources` in order.

    All adapters of `sources` (folder or hub id by name) are read, so that one error can name all
    bad ones. No adapter is yielded after the first bad one. With `skips_bad`, bad ones are logged
    and left out instead.

    Raises:
        AdapterRejected: adapters can't be served, and `skips_bad` is false.
        StoreFailed: the adapters' files can't be copied.
    """
    reader = _SharingReader(sources, read)
    bad: dict[str, AdapterRejected] = {}
    reported_s = time.monotonic()
    for number, name in enumerate(sources):
        if time.monotonic() - reported_s > PROGRESS_S:
            log.info("adapters_read", number=number, of=len(sources))
            reported_s = time.monotonic()
        try:
            adapter = await reader.read(name)
        except StoreFailed:
            raise
        except AdapterRejected as error:
            bad[name] = error
            if skips_bad:
                log.error(LEFT_OUT, name=name, reason=str(error))
            continue
        if skips_bad or not bad:
            yield adapter
    if bad and not skips_bad:
        raise refusal(list(bad.values()), len(sources))


def refusal(errors: Sequence[AdapterRejected], num_adapters: int) -> AdapterRejected:
    """Return one error that reports the `errors` of all bad adapters among `num_adapters`."""
    if num_adapters == 1:
        return errors[0]
    if len(errors) == 1:
        return AdapterRejected(f"{errors[0]} (--skip-bad-adapters serves the other adapters)")
    reasons = "".join(f"\n  {error}" for error in errors)
    return AdapterRejected(
        f"{len(errors)} of {num_adapters} adapters can't be served; correct them, or serve the "
        f"rest with --skip-bad-adapters:{reasons}"
    )


def has_bases_name(name: str, source: str) -> AdapterRejected:
    """Return the error of an adapter that has the base model's name."""
    return AdapterRejected(
        f"adapter {name} from {source}: this is the base model's name; name it otherwise, as in "
        f"--adapters other={source}"
    )


class _SharingReader:
    """Reads adapters. Files of one source are read once, as far as MAX_SHARED_BYTES allows."""

    def __init__(self, sources: Mapping[str, str], read: Read) -> None:
        self._sources = sources
        self._read = read
        self._num_left = Counter(sources.values())
        self._shared: dict[str, CheckedAdapter[AdapterWeights]] = {}
        self._num_bytes = 0

    async def read(self, name: str) -> CheckedAdapter[AdapterWeights]:
        source = self._sources[name]
        self._num_left[source] -= 1
        is_last = not self._num_left[source]
        first = self._shared.get(source)
        adapter = first.named(name) if first else await self._read(name, source)
        size = adapter.weights.num_bytes
        if first and is_last:
            self._num_bytes -= self._shared.pop(source).weights.num_bytes
        elif not first and not is_last and self._num_bytes + size <= MAX_SHARED_BYTES:
            self._shared[source] = adapter
            self._num_bytes += size
        return adapter
