"""API keys that `lorikeet keys create` stores in Redis: their rights, limits and digests."""

import hmac
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from shared.protocol.access.rights import Access, KeyLimits, Scope
from shared.store.access.secret import digest_of, id_of, new_secret
from shared.store.adapters.audit_log import log_key_change
from shared.store.redis.connection import decode_hash, unix_ms
from shared.store.redis.pool_store import PoolStore

_LIMITS = tuple(field.name for field in fields(KeyLimits))
_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A stored key, without its secret. Times are Unix times in milliseconds on Redis' clock."""

    id: str
    access: Access
    limits: KeyLimits
    created_ms: int
    expires_ms: int | None
    """Time from which the key is refused; None if it doesn't expire."""
    revoked_ms: int | None
    """Time since which the key is refused; None if it isn't revoked."""

    def is_valid(self, now_ms: int) -> bool:
        """Return whether requests with the key are accepted."""
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)


class KeyStore(PoolStore):
    """Creates, finds, lists and revokes the keys of one pool."""

    async def create(
        self, access: Access, limits: KeyLimits, *, lifetime_ms: int | None = None
    ) -> tuple[StoredKey, str]:
        """Store a new key, and return it with its secret. The secret can't be read again.

        `access` has the rights of the key. Its `key_id` is ignored. `lifetime_ms` is the number of
        milliseconds after which the key expires; None for a key that doesn't expire.
        """
        secret = new_secret()
        key_id = id_of(secret)
        assert key_id is not None
        now_ms = await self.now_ms()
        record = {  # accounting.lua and key_limits.lua also read some of these fields
            "digest": digest_of(secret),
            "tenant": access.tenant,
            "scopes": " ".join(sorted(access.scopes)),
            "models": " ".join(access.models),
            "created_ms": now_ms,
            "expires_ms": lifetime_ms and now_ms + lifetime_ms,
            **asdict(limits),
        }
        given = {name: value for name, value in record.items() if value is not None}
        pipe = self._redis.pipeline(transaction=True)
        pipe.hset(self._keys.access_key(key_id), mapping=given)
        pipe.zadd(self._keys.access_keys, {key_id: now_ms})
        log_key_change(pipe, self._keys, "key_created", after=f"{access.tenant}/{key_id}")
        await pipe.execute()
        found = _stored_key(key_id, {name: str(value) for name, value in given.items()})
        return found, secret

    async def find(self, secret: str) -> Access | None:
        """Return the rights of the key with this secret, or None if it is unknown or refused.

        Raises:
            RedisUnavailable: the keys can't be read.
        """
        key_id = id_of(secret)
        if key_id is None:
            return None
        pipe = self._redis.pipeline(transaction=False)
        pipe.time()
        pipe.hgetall(self._keys.access_key(key_id))
        time, raw = await pipe.execute()
        record = decode_hash(raw)
        if not hmac.compare_digest(record.get("digest", ""), digest_of(secret)):
            return None
        key = _stored_key(key_id, record)
        return key.access if key.is_valid(unix_ms(time)) else None

    async def read(self, key_id: str) -> StoredKey | None:
        """Return the key with this id, or None if no such key was created."""
        raw = await self._redis.hgetall(self._keys.access_key(key_id))  # type: ignore[misc]
        record = decode_hash(raw)
        return _stored_key(key_id, record) if record else None

    async def all(self) -> list[StoredKey]:
        """Return all keys, including revoked and expired ones, oldest first."""
        ids = [raw.decode() for raw in await self._redis.zrange(self._keys.access_keys, 0, -1)]
        pipe = self._redis.pipeline(transaction=False)
        for key_id in ids:
            pipe.hgetall(self._keys.access_key(key_id))
        records = await pipe.execute()
        pairs = zip(ids, map(decode_hash, records), strict=True)
        return [_stored_key(key_id, record) for key_id, record in pairs if record]

    async def exist(self) -> bool:
        """Return whether a key has ever been created in the pool."""
        return bool(await self._redis.exists(self._keys.access_keys))

    async def revoke(self, key_id: str) -> bool:
        """Refuse the key from now on, and return whether it exists.

        The record is kept, so that the owner of the key can still be looked up.
        """
        key = await self.read(key_id)
        if key is None:
            return False
        if key.revoked_ms is None:
            pipe = self._redis.pipeline(transaction=True)
            pipe.hsetnx(self._keys.access_key(key_id), "revoked_ms", str(await self.now_ms()))
            owner = f"{key.access.tenant}/{key_id}"
            log_key_change(pipe, self._keys, "key_revoked", before=owner)
            await pipe.execute()
        return True

    async def now_ms(self) -> int:
        """Return the present time on Redis' clock."""
        return unix_ms(await self._redis.time())


def _stored_key(key_id: str, record: Mapping[str, str]) -> StoredKey:
    def number(name: str) -> int | None:
        return int(record[name]) if name in record else None

    limits: dict[str, Any] = {name: number(name) for name in _LIMITS}
    return StoredKey(
        id=key_id,
        access=Access(
            tenant=record["tenant"],
            scopes=frozenset(Scope(word) for word in record["scopes"].split() if word in _SCOPES),
            models=tuple(record["models"].split()),
            key_id=key_id,
        ),
        limits=KeyLimits(**limits),
        created_ms=int(record["created_ms"]),
        expires_ms=number("expires_ms"),
        revoked_ms=number("revoked_ms"),
    )
