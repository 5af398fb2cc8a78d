"""Changes of stored API keys, with the checks that keep a pool from being locked by accident."""

from dataclasses import asdict
from datetime import timedelta
from typing import Literal

from api.schema.keys import CreatedKey, CreateKeyRequest, KeyBody, KeyList, Limits
from shared.errors import ErrorCode, JobError, JobFailed, failed, invalid_value
from shared.protocol.access.rights import ALL_MODELS, Access, KeyLimits, Scope
from shared.store.access.key_store import KeyStore, StoredKey, TooManyKeys
from shared.store.adapters.audit_log import OPERATOR

SHOWS_POOL = frozenset({Scope.METRICS, Scope.ADMIN})
"""Scopes that show all models' names. Keys with these scopes can't be limited to some models."""
MAX_ID_CHARS = 100
_DAY_MS = timedelta(days=1) // timedelta(milliseconds=1)


class KeyBook:
    """Lists and changes the stored keys of one pool on behalf of a client.

    The access of an operator, who uses Redis instead of the API, has the tenant `OPERATOR`.
    """

    def __init__(self, store: KeyStore, access: Access) -> None:
        self._store = store
        self._access = access

    async def are_demanded(self) -> bool:
        """Return whether requests need a key because keys are stored."""
        return bool(await self._store.demanded())

    async def listed(self) -> KeyList:
        """Return all keys, oldest first, without their secrets."""
        now_ms = await self._store.now_ms()
        return KeyList(data=[_body(key, now_ms) for key in await self._store.all()])

    async def create(self, body: CreateKeyRequest) -> CreatedKey:
        """Create a key, and return it with its secret.

        Raises:
            JobFailed: the key isn't allowed, or the pool has too many keys.
        """
        granted = await self._granted(body)
        limits = KeyLimits(**body.limits.model_dump()) if body.limits else KeyLimits()
        lifetime_ms = body.expires_days and body.expires_days * _DAY_MS
        try:
            key, secret = await self._store.create(
                granted, limits, lifetime_ms=lifetime_ms, by=self._access.actor
            )
        except TooManyKeys as error:
            raise failed(ErrorCode.QUOTA_EXCEEDED, str(error)) from None
        return CreatedKey(**dict(_body(key, key.created_ms)), secret=secret)

    async def revoke(self, key_id: str, *, allows_lockout: bool) -> KeyBody:
        """Revoke a key and return it.

        Raises:
            JobFailed: no key has this id; or the key is the last one that can manage keys, and
                `allows_lockout` is false.
        """
        key = await self._store.read(key_id)
        if key is not None:
            if not allows_lockout:
                await self._check_is_not_last(key)
            await self._store.revoke(key_id, by=self._access.actor)
            key = await self._store.read(key_id)
        if key is None:
            raise failed(
                ErrorCode.KEY_NOT_FOUND,
                f"no key has the id {key_id[:MAX_ID_CHARS]!r}; GET /v1/keys lists all ids",
            )
        return _body(key, await self._store.now_ms())

    async def open(self) -> KeyList:
        """Revoke all keys, accept requests without a key again, and return the keys."""
        await self._store.open(by=self._access.actor)
        return await self.listed()

    async def _granted(self, body: CreateKeyRequest) -> Access:
        """Return the rights of a new key. By default, an open pool's first key has all scopes."""
        is_first = await self._is_first()
        scopes = frozenset(body.scopes or (Scope if is_first else (Scope.INFERENCE,)))
        models = tuple(body.models or (ALL_MODELS,))
        if ALL_MODELS not in models and (too_wide := SHOWS_POOL & scopes):
            first = "; the first key has all scopes unless `scopes` is given" if is_first else ""
            raise invalid_value(
                f"models: a key with the scope {min(too_wide)} sees the names of all models; leave "
                f"one of the two out{first}",
                "models",
            )
        if is_first and Scope.ADMIN not in scopes and not body.allow_lockout:
            raise failed(
                ErrorCode.KEY_CONFLICT,
                "this would be the first key: requests without a key are then refused, and nobody "
                "could manage keys. Create a key with the scope admin first, or send "
                "allow_lockout=true",
                "scopes",
            )
        return Access(tenant=body.tenant, scopes=scopes, models=models)

    async def _is_first(self) -> bool:
        """Return whether nobody has a key yet.

        Raises:
            JobFailed: the client has no key, and the first key was created just now.
        """
        has_keys = await self.are_demanded()
        if has_keys and self._access.is_anonymous:
            message = "the pool has its first key by now, so an API key is needed"
            raise JobFailed(JobError(code=ErrorCode.INVALID_API_KEY, message=message))
        return not has_keys and (self._access.is_anonymous or self._access.tenant == OPERATOR)

    async def _check_is_not_last(self, key: StoredKey) -> None:
        """Check that a stored key other than `key` can manage keys.

        Nothing is checked if the client's own key isn't stored, or if `key` can't manage keys.
        """
        if not self._access.key_id or Scope.ADMIN not in key.access.scopes:
            return
        now_ms = await self._store.now_ms()
        others = (each for each in await self._store.all() if each.id != key.id)
        if not any(each.is_valid(now_ms) and Scope.ADMIN in each.access.scopes for each in others):
            raise failed(
                ErrorCode.KEY_CONFLICT,
                "it is the last stored key with the scope admin, so nobody could manage keys. "
                "Create another one first, open the pool with DELETE /v1/keys?opens_pool=true, or "
                "send allow_lockout=true",
            )


def _body(key: StoredKey, now_ms: int) -> KeyBody:
    return KeyBody(
        id=key.id,
        tenant=key.access.tenant,
        scopes=sorted(key.access.scopes),
        models=list(key.access.models),
        limits=Limits(**asdict(key.limits)),
        created_at=key.created_ms / 1000,
        expires_at=_seconds(key.expires_ms),
        revoked_at=_seconds(key.revoked_ms),
        state=_state(key, now_ms),
    )


def _state(key: StoredKey, now_ms: int) -> Literal["valid", "expired", "revoked"]:
    if key.is_valid(now_ms):
        return "valid"
    return "expired" if key.revoked_ms is None else "revoked"


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000
