"""API keys that Redis stores: their rights, limits and digests."""

import hmac
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from shared.errors import LorikeetError
from shared.protocol.access.rights import Access, KeyLimits, Scope
from shared.store.access.secret import digest_of, id_of, new_secret
from shared.store.adapters.audit_log import OPERATOR, log_key_change
from shared.store.redis.connection import Pipeline, decode_hash, unix_ms
from shared.store.redis.pool_store import PoolStore

_LIMITS = tuple(field.name for field in fields(KeyLimits))
_SCOPES = frozenset(Scope)
MAX_KEYS = 5000
"""Maximum number of keys in a pool. At the limit, a new key replaces the oldest invalid one."""


class TooManyKeys(LorikeetError):
    """The pool has `MAX_KEYS` keys, and all of them are valid."""


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
        self,
        access: Access,
        limits: KeyLimits,
        *,
        lifetime_ms: int | None = None,
        by: str = OPERATOR,
    ) -> tuple[StoredKey, str]:
        """Store a new key, and return it with its secret. The secret can't be read again.

        `access` has the rights of the key. Its `key_id` is ignored. `lifetime_ms` is the number of
        milliseconds after which the key expires; None for a key that doesn't expire. `by` is the
        author in the audit log.

        Raises:
            TooManyKeys: the pool has the maximum number of keys, and all of them are valid.
        """
        secret = new_secret()
        key_id = id_of(secret)
        assert key_id is not None
        now_ms = await self.now_ms()
        outdated = await self._to_replace(now_ms)
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
        for old in outdated:
            pipe.delete(self._keys.access_key(old))
            pipe.zrem(self._keys.access_keys, old)
        pipe.hset(self._keys.access_key(key_id), mapping=given)
        pipe.zadd(self._keys.access_keys, {key_id: now_ms})
        pipe.delete(self._keys.access_open)
        log_key_change(pipe, self._keys, "key_created", by, after=f"{access.tenant}/{key_id}")
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

    async def demanded(self) -> bool | None:
        """Return whether requests need a key: True once there are keys, False after `open`.

        None if no key was ever created, or if Redis has lost its data.
        """
        pipe = self._redis.pipeline(transaction=True)
        pipe.exists(self._keys.access_open)
        pipe.exists(self._keys.access_keys)
        is_open, has_keys = await pipe.execute()
        return False if is_open else bool(has_keys) or None

    async def revoke(self, key_id: str, *, by: str = OPERATOR) -> bool:
        """Refuse the key from now on, and return whether it exists. `by` is for the audit log.

        The record is kept, so that the owner of the key can still be looked up.
        """
        key = await self.read(key_id)
        if key is None:
            return False
        if key.revoked_ms is None:
            pipe = self._redis.pipeline(transaction=True)
            self._revoke(pipe, key, await self.now_ms(), by)
            await pipe.execute()
        return True

    async def open(self, *, by: str = OPERATOR) -> None:
        """Revoke all keys, and accept requests without a key until the next key is created.

        `by` is the author in the audit log.
        """
        now_ms = await self.now_ms()
        pipe = self._redis.pipeline(transaction=True)
        for key in await self.all():
            if key.revoked_ms is None:
                self._revoke(pipe, key, now_ms, by)
        pipe.set(self._keys.access_open, str(now_ms))
        log_key_change(pipe, self._keys, "keys_opened", by)
        await pipe.execute()

    async def now_ms(self) -> int:
        """Return the present time on Redis' clock."""
        return unix_ms(await self._redis.time())

    async def _to_replace(self, now_ms: int) -> list[str]:
        """Return the ids of the keys to delete to make room for a new key.

        While the number of keys is below the limit, no key is deleted. At the limit, it is the
        oldest invalid key.

        Raises:
            TooManyKeys: all keys are valid.
        """
        if await self._redis.zcard(self._keys.access_keys) < MAX_KEYS:
            return []
        for key in await self.all():
            if not key.is_valid(now_ms):
                return [key.id]
        raise TooManyKeys(f"the pool has {MAX_KEYS:,} valid keys; revoke some first")

    def _revoke(self, pipe: Pipeline, key: StoredKey, now_ms: int, by: str) -> None:
        pipe.hsetnx(self._keys.access_key(key.id), "revoked_ms", str(now_ms))
        owner = f"{key.access.tenant}/{key.id}"
        log_key_change(pipe, self._keys, "key_revoked", by, before=owner)


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
