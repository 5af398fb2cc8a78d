"""Caches API keys that Redis stores, so that most requests needn't read them from Redis."""

import hashlib
import time
from dataclasses import dataclass

from shared.errors import RedisUnavailable
from shared.protocol.access.rights import Access
from shared.store.access.key_store import KeyStore

MAX_AGE_S = 2.0
"""Seconds for which a key is remembered. A revoked key can still list models for this time. It
can't enqueue jobs, because the queue checks the key again."""
MAX_KEYS = 4096
"""Maximum number of entries of each cache. The oldest entry makes room for a new one."""


@dataclass(frozen=True, slots=True)
class _Entry:
    access: Access | None
    read_s: float


class StoredKeys:
    """Cache of the API keys in Redis, keyed by the digests of their secrets.

    Secrets that Redis doesn't know have a cache of their own, so that guesses don't displace valid
    keys.
    """

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys
        self._known: dict[bytes, _Entry] = {}
        self._unknown: dict[bytes, _Entry] = {}
        self._is_demanded = False
        self._asked_s: float | None = None

    async def access_of(self, secret: str) -> Access | None:
        """Return the rights of a key, or None if it is unknown, revoked or expired.

        Raises:
            RedisUnavailable: the key isn't remembered, and the keys can't be read.
        """
        digest, now_s = hashlib.sha256(secret.encode()).digest(), time.monotonic()
        entry = self._known.get(digest) or self._unknown.get(digest)
        if entry is None or now_s - entry.read_s >= MAX_AGE_S:
            entry = _Entry(await self._keys.find(secret), now_s)
            self._remember(digest, entry)
        return entry.access

    async def demanded(self) -> bool:
        """Return whether requests need a key because the pool has stored keys.

        Once requests need a key, only `KeyStore.open` changes this. If Redis loses the keys or is
        out of reach, the answer stays True.

        Raises:
            RedisUnavailable: Redis can't be read, and no key was seen before.
        """
        now_s = time.monotonic()
        if self._asked_s is None or now_s - self._asked_s >= MAX_AGE_S:
            try:
                answer = await self._keys.demanded()
            except RedisUnavailable:
                if self._is_demanded:
                    return True
                raise
            self._is_demanded = self._is_demanded if answer is None else answer
            self._asked_s = now_s
        return self._is_demanded

    def _remember(self, digest: bytes, entry: _Entry) -> None:
        self._known.pop(digest, None)
        self._unknown.pop(digest, None)
        entries = self._unknown if entry.access is None else self._known
        while len(entries) >= MAX_KEYS:
            del entries[next(iter(entries))]
        entries[digest] = entry
