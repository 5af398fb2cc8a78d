"""Pool of Redis connections that adds little time to a call."""

import asyncio
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.asyncio.connection import ConnectionPool as BasePool


class ConnectionPool(BasePool):
    """Pool of connections. If all are in use, calls wait in order for a free one.

    Before each use, redis-py's own pools take a lock and read from the connection, which costs
    several turns of the event loop. This pool only checks whether the server has closed the
    connection. A free connection never has unread data: if a call is cancelled or fails before its
    reply is read, redis-py closes the connection.
    """

    def __init__(self, *, max_connections: int, **options: Any) -> None:
        """Create a pool without connections. `options` are the options of redis-py's pool."""
        super().__init__(max_connections=max_connections, **options)
        self._free = asyncio.Semaphore(max_connections)

    async def get_connection(self, *_: Any, **__: Any) -> AbstractConnection:
        """Return an open connection. The caller must release it."""
        await self._free.acquire()
        connection: AbstractConnection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connect `connection` if it isn't connected or if the server has closed it."""
        reader = connection._reader  # redis-py has no public way to see that a connection ended
        if reader is not None and (reader.at_eof() or reader.exception()):
            await connection.disconnect(nowait=True)
        if not connection.is_connected:
            await connection.connect()  # type: ignore[no-untyped-call]

    async def release(self, connection: AbstractConnection) -> None:
        """Return a connection to the pool."""
        try:
            await super().release(connection)
        finally:
            self._free.release()
