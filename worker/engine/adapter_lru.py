"""Eviction order of resident adapters, and an adapter memory that counts bytes. Policy only."""

from collections import OrderedDict
from collections.abc import Callable, Container, Sequence
from typing import TypeVar

from shared.protocol.ids import AdapterVersion
from worker.engine.interface import AdapterImage, EvictionOrder, Placing
from worker.engine.rules import check_size

ImageT = TypeVar("ImageT", bound=AdapterImage)


class AdapterLRU(OrderedDict[AdapterVersion, str]):
    """Digests of the weights of the resident adapters, least recently used first."""

    def add(self, version: AdapterVersion, weights_digest: str) -> None:
        """Add a version as the most recently used one."""
        self[version] = weights_digest

    def discard(self, version: AdapterVersion) -> None:
        """Remove a version if it is resident."""
        self.pop(version, None)


def version_to_evict(idle: Sequence[AdapterVersion], order: EvictionOrder) -> AdapterVersion:
    """Return the version to evict next.

    `idle` has the versions that no request uses, least recently used first, and isn't empty. The
    result is the least recently used version in `order.first`. If `idle` has none of these, it is
    the least recently used version that isn't in `order.last`, or else the first of `idle`.
    """

    def group(version: AdapterVersion) -> int:
        if version in order.first:
            return 0
        return 2 if version in order.last else 1

    return min(idle, key=group)  # `min` returns the first of equals: the least recently used


class CountedMemory:
    """Reserves adapter memory by counting bytes. The image itself serves as the reservation."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.residents = AdapterLRU()
        self._sizes: dict[AdapterVersion, int] = {}
        """Bytes of each resident or reserved adapter."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all resident and reserved adapters."""
        return sum(self._sizes.values())

    def place(
        self,
        image: ImageT,
        in_use: Container[AdapterVersion | None],
        evict: Callable[[AdapterVersion], None],
        *,
        may_evict: bool,
        order: EvictionOrder,
    ) -> Placing[ImageT]:
        """Reserve memory for an adapter, unless versions `in_use` need it; see `Engine.place`.

        `evict` must remove a version from the engine, and call `discard` to free its memory here.
        """
        check_size(image, max_bytes=self._max_bytes)
        evicted: list[AdapterVersion] = []
        while self._num_free < image.num_bytes:
            if not (may_evict and self.has_room(image.num_bytes, in_use)):
                return Placing(None, evicted)
            victim = version_to_evict(self._idle(in_use), order)
            evict(victim)
            evicted.append(victim)
        self._sizes[image.version] = image.num_bytes
        return Placing(image, evicted)

    def discard(self, version: AdapterVersion) -> None:
        """Free the memory of a version, if it has any."""
        self._sizes.pop(version, None)
        self.residents.discard(version)

    def has_room(self, num_bytes: int, in_use: Container[AdapterVersion | None]) -> bool:
        """Return whether `num_bytes` would fit if all idle adapters were evicted."""
        idle = sum(self._sizes[version] for version in self._idle(in_use))
        return self._num_free + idle >= num_bytes

    @property
    def _num_free(self) -> int:
        return self._max_bytes - self.num_bytes

    def _idle(self, in_use: Container[AdapterVersion | None]) -> list[AdapterVersion]:
        """Return the resident adapters that no request uses, least recently used first."""
        return [version for version in self.residents if version not in in_use]
