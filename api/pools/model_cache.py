"""Caches the models that the names in requests refer to."""

import time

from shared.store.adapters.registry import Found, Registry

MAX_AGE_S = 1.0
"""Seconds for which a model stays in the cache.

It must be shorter than the time for which retired versions are kept (`forget_unused.lua`).
"""
MAX_MODELS = 2048
"""Maximum number of cached models. A new model replaces the oldest one."""


class ModelCache:
    """Caches models from the registry, so that most requests needn't read it.

    A cached model may be outdated. `Queue.enqueue` therefore checks that the registry still has the
    revision from which the model was read. All cached models are from one revision. Unknown names
    aren't cached.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._revision = ""
        self._entries: dict[str, tuple[float, Found]] = {}
        """For each name in requests: the monotonic time of the read in seconds, and the model."""

    def remembered(self, model: str) -> Found | None:
        """Return the model that was cached for a name, or None if the cache has none."""
        read_s, found = self._entries.get(model, (0.0, None))
        return found if time.monotonic() - read_s < MAX_AGE_S else None

    async def read(self, model: str) -> Found:
        """Read from the registry the model that a name refers to, and cache it.

        Raises:
            JobFailed: the adapter is quarantined.
            RedisUnavailable: the registry can't be read.
        """
        started_s = time.monotonic()
        found = await self._registry.find(model)
        if found.revision != self._revision:
            self._entries.clear()
            self._revision = found.revision
        self._entries.pop(model, None)
        if found.base is not None and found.version is not None:
            while len(self._entries) >= MAX_MODELS:
                del self._entries[next(iter(self._entries))]
            self._entries[model] = started_s, found
        return found
