"""Changes API keys directly in Redis, for operators whose server lets nobody in yet."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel

from api.access.key_book import KeyBook
from api.http.validation import validate
from api.schema.keys import CreateKeyRequest
from ops.server_client import Body
from shared.protocol.access.rights import Access, Scope
from shared.settings import PoolSettings
from shared.store.access.key_store import KeyStore
from shared.store.adapters.audit_log import OPERATOR
from shared.store.redis.connection import check_redis, connect
from shared.store.redis.keys import Keys

T = TypeVar("T")


class RedisKeys:
    """The keys of one pool, with the methods of `ops.pool_client.KeyClient`.

    Every method raises `RedisUnavailable` if Redis can't be reached, and `JobFailed` if the change
    isn't allowed.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings

    def is_open(self) -> bool:
        """Return whether requests to the pool need no stored key."""
        return not asyncio.run(self._used(lambda book: book.are_demanded()))

    def listed(self) -> list[Body]:
        """Return all stored keys, oldest first."""
        return self._listed(lambda book: book.listed())

    def create(self, wanted: Body) -> Body:
        """Create the key that the request body `wanted` describes. Return it with its secret."""
        body = validate(CreateKeyRequest, wanted)
        return self._result(lambda book: book.create(body))

    def revoke(self, key_id: str, *, allows_lockout: bool) -> Body:
        """Revoke a key and return it. Operators can always create another one."""
        return self._result(lambda book: book.revoke(key_id, allows_lockout=allows_lockout))

    def open(self) -> list[Body]:
        """Revoke all keys, let the pool accept requests without a key, and return the keys."""
        return self._listed(lambda book: book.open())

    def _listed(self, use: Callable[[KeyBook], Awaitable[BaseModel]]) -> list[Body]:
        found: list[Body] = self._result(use)["data"]
        return found

    def _result(self, use: Callable[[KeyBook], Awaitable[BaseModel]]) -> dict[str, Any]:
        return asyncio.run(self._used(use)).model_dump(mode="json")

    async def _used(self, use: Callable[[KeyBook], Awaitable[T]]) -> T:
        operator = Access(tenant=OPERATOR, scopes=frozenset(Scope))
        async with connect(self._settings.redis_url) as redis:
            await check_redis(redis, self._settings.redis_url)
            return await use(KeyBook(KeyStore(redis, Keys(self._settings.pool)), operator))
