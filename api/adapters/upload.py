"""Receives an adapter as a request body, and writes it to Redis for the workers."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Request

from api.http.content_encoding import Decoder
from api.pools.context import Context
from shared.errors import ErrorCode, JobError, JobFailed, RedisUnavailable, invalid_value
from shared.protocol.ids import UploadId
from shared.store.uploads import CONFIG, PIECE_BYTES

MIB = 1 << 20
MARGIN_S = 60
"""Seconds for which an upload outlives the deadline of its inspection."""
CONTENT_TYPES = ("application/octet-stream", "application/x-safetensors")


@asynccontextmanager
async def received(
    request: Request, context: Context, tenant: str, config: str | None
) -> AsyncIterator[UploadId]:
    """Receive the body of `request` as an upload, which is deleted if the block raises.

    At most two pieces of the body are in memory at once.

    Raises:
        JobFailed: the body is empty or too large, has another content type, doesn't fit into
            Redis' memory, or exceeds what the tenant may upload.
        RedisUnavailable: Redis can't be reached.
    """
    _check_content_type(request)
    upload = UploadId(secrets.token_hex(16))
    try:
        await _write(request, context, tenant, upload, config)
        yield upload
    except BaseException:
        with suppress(RedisUnavailable):  # then the upload expires
            await context.uploads.discard(upload)
        raise


async def _write(
    request: Request, context: Context, tenant: str, upload: UploadId, config: str | None
) -> None:
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    max_bytes = context.settings.max_adapter_mb * MIB
    if size > max_bytes:
        raise _too_large(context.settings.max_adapter_mb)
    ttl_ms = int((context.settings.deadline_s + MARGIN_S) * 1000)
    num_written = number = 0
    async for piece in _pieces(request, max_bytes):
        num_written += len(piece)
        if num_written > max_bytes:
            raise _too_large(context.settings.max_adapter_mb)
        num_left = max(0, size - num_written)
        await context.uploads.append(
            upload, str(number), piece, tenant=tenant, num_left=num_left, ttl_ms=ttl_ms
        )
        number += 1
    if not num_written:
        raise invalid_value("the body is empty; send the bytes of adapter_model.safetensors")
    if config is not None:
        await context.uploads.append(
            upload, CONFIG, config.encode(), tenant=tenant, num_left=0, ttl_ms=ttl_ms
        )


async def _pieces(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the decoded body in pieces of `PIECE_BYTES`, the last of which may be shorter."""
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
    return JobFailed(JobError(code=ErrorCode.REQUEST_TOO_LARGE, message=message))
