"""Files of adapters that clients send. Redis passes them on to the workers.

A front end writes the files in pieces. A worker reads them when it checks or loads the adapter.
After a version was registered from an upload, the upload is kept as long as the version, so that
workers that start later can also load it. `append_upload.lua` enforces the limits on the memory and
the number of uploads.
"""

from collections.abc import AsyncIterator
from typing import Any

from shared.errors import ErrorCode, JobFailed, failed
from shared.protocol.ids import UploadId
from shared.store.redis.connection import OutOfMemory
from shared.store.redis.pool_store import PoolStore
from shared.store.redis.retry import retry_until_available

PIECE_BYTES = 1 << 20
"""Maximum number of bytes of a piece. Redis copies such a piece within a millisecond."""
CONFIG = "config"
"""Field with the text of adapter_config.json."""


class UploadGone(Exception):
    """The upload has expired, or was deleted with its version."""


class Uploads(PoolStore):
    """Writes, reads and deletes the uploads of one pool."""

    async def append(
        self,
        upload: UploadId,
        field: str,
        piece: bytes,
        *,
        tenant: str,
        num_left: int,
        ttl_ms: int,
    ) -> None:
        """Store one piece of at most `PIECE_BYTES` bytes, and charge it to the tenant.

        `field` is `CONFIG`, or the number of the piece, from 0. `num_left` is the number of bytes
        that the client has announced and not yet sent. The upload expires after `ttl_ms` unless
        another piece arrives or a version is made from the upload.

        Raises:
            JobFailed: the upload would leave too little of Redis' memory for jobs, or the tenant
                would exceed its part of the memory or has too many uploads.
            RedisUnavailable: Redis can't be reached.
        """
        try:
            reply = await self._scripts.run(
                "append_upload", upload, field, piece, num_left, ttl_ms, tenant
            )
        except OutOfMemory:
            reply = b"memory"
        if reply != b"ok":
            raise _refused(reply.decode())

    async def config(self, upload: UploadId) -> bytes | None:
        """Return the text of adapter_config.json, or None if it wasn't sent.

        Retries while Redis is unavailable.
        """
        return await self._field(upload, CONFIG)

    async def pieces(self, upload: UploadId) -> AsyncIterator[bytes]:
        """Yield the pieces of the weights file in order. Retries while Redis is unavailable.

        Raises:
            UploadGone: the upload isn't in Redis.
        """
        size = await self._field(upload, "size")
        num_read = number = 0
        while size is None or num_read < int(size):
            piece = await self._field(upload, str(number))
            if piece is None:
                raise UploadGone(upload)
            yield piece
            num_read += len(piece)
            number += 1

    async def _field(self, upload: UploadId, field: str) -> bytes | None:
        async def read() -> bytes | None:
            found: Any = await self._redis.hget(self._keys.upload(upload), field)  # type: ignore[misc]
            return None if found is None else bytes(found)

        return await retry_until_available(read)

    async def discard(self, upload: UploadId) -> None:
        """Delete an upload that didn't become a version."""
        await self._scripts.run("discard_upload", upload)


def _refused(limit: str) -> JobFailed:
    if limit == "memory":
        message = "Redis has too little free memory for this adapter; unload adapters, lower "
        message += "--keep-versions, or raise Redis' maxmemory"
        return failed(ErrorCode.UNAVAILABLE, message)
    what = "half of Redis' memory" if limit == "bytes" else "too many versions"
    message = f"the adapters that this tenant has uploaded are {what}; unload some of them"
    return failed(ErrorCode.QUOTA_EXCEEDED, message)
