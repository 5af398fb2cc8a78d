"""Pool of Redis connections that adds little to the time of a call."""

from redis.asyncio.connection import AbstractConnection, BlockingConnectionPool


class ConnectionPool(BlockingConnectionPool):
    """Pool whose calls wait for a free connection if all are in use.

    redis-py's pool tries to read from a connection before each use. This costs a timer and a turn
    of the event loop. This pool only checks whether the server has closed the connection. A
    connection never has unread data, because redis-py closes connections whose call was cancelled
    or failed before its reply was read.
    """

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        """Connect `connection` if it isn't connected or if the server has closed it."""
        reader = connection._reader  # redis-py has no public way to see that a connection ended
        if reader is not None and (reader.at_eof() or reader.exception()):
            await connection.disconnect(nowait=True)
        await connection.connect()  # type: ignore[no-untyped-call]
