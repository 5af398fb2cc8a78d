"""Receives an adapter as a request body, and writes it to Redis for the workers."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import Request

from api.http.body import Decoder, declared_size
from shared.errors import ErrorCode, JobFailed, RedisUnavailable, failed, invalid_value
from shared.protocol.ids import UploadId
from shared.store.adapters.uploads import CONFIG, PIECE_BYTES, Uploads

MIB = 1 << 20
MARGIN_S = 60
"""Seconds for which an upload is kept after the deadline of its inspection."""
CONTENT_TYPES = ("application/octet-stream", "application/x-safetensors")


class AdapterUploads:
    """Receives uploads of one pool."""

    def __init__(self, uploads: Uploads, *, max_mb: int, deadline_s: float) -> None:
        """Create an object that refuses adapters of more than `max_mb` MiB.

        `deadline_s` is the number of seconds within which workers inspect an upload.
        """
        self._uploads = uploads
        self._max_mb = max_mb
        self._ttl_ms = int((deadline_s + MARGIN_S) * 1000)

    @asynccontextmanager
    async def received(
        self, request: Request, tenant: str, config: str | None
    ) -> AsyncIterator[UploadId]:
        """Receive the body of `request` as an upload. Delete the upload if the block raises.

        At most two pieces of the body are in memory at once.

        Raises:
            JobFailed: the body is empty or too large, has another content type, doesn't fit into
                Redis' memory, or exceeds what the tenant may upload.
            RedisUnavailable: Redis can't be reached.
        """
        _check_content_type(request)
        upload = UploadId(secrets.token_hex(16))
        try:
            await self._write(request, tenant, upload, config)
            yield upload
        except BaseException:
            with suppress(RedisUnavailable):  # in this case, the upload expires by itself
                await self._uploads.discard(upload)
            raise

    async def _write(
        self, request: Request, tenant: str, upload: UploadId, config: str | None
    ) -> None:
        size, max_bytes = declared_size(request), self._max_mb * MIB
        if size > max_bytes:
            raise _too_large(self._max_mb)
        append = partial(self._uploads.append, upload, tenant=tenant, ttl_ms=self._ttl_ms)
        num_written = number = 0
        async for piece in _pieces(request, max_bytes):
            num_written += len(piece)
            if num_written > max_bytes:
                raise _too_large(self._max_mb)
            await append(str(number), piece, num_left=max(0, size - num_written))
            number += 1
        if not num_written:
            raise invalid_value("the body is empty; send the bytes of adapter_model.safetensors")
        if config is not None:
            await append(CONFIG, config.encode(), num_left=0)


async def _pieces(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the decoded body in pieces of `PIECE_BYTES`. The last piece may be shorter."""
    decoder = Decoder(request.headers.get("content-encoding", ""), max_bytes)
    held = bytearray()
    async for chunk in request.stream():
        held += decoder.decode(chunk)
        while len(held) >= PIECE_BYTES:
            yield bytes(held[:PIECE_BYTES])
            del held[:PIECE_BYTES]
    decoder.finish()
    if held:
        yield bytes(held)


def _check_content_type(request: Request) -> None:
    found = request.headers.get("content-type", CONTENT_TYPES[0]).partition(";")[0].strip().lower()
    if found not in CONTENT_TYPES:
        raise invalid_value(
            f"the content type must be {' or '.join(CONTENT_TYPES)}, not {found!r}; to load an "
            "adapter from a folder, use POST /v1/load_lora_adapter"
        )


def _too_large(max_mb: int) -> JobFailed:
    message = f"the adapter is larger than {max_mb} MiB; ask the operator to raise --max-adapter-mb"
    return failed(ErrorCode.REQUEST_TOO_LARGE, message)
