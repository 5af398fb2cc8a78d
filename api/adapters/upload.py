"""Receives an adapter as a request body, and writes it to Redis for the workers."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
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
        """Receive the body of `request` as an upload.

        The upload is deleted if this or the `with` block raises.

        At most two pieces of the body are in memory at once.

        Raises:
            JobFailed: the body is empty or too large, has a wrong content type, or as in
                `UploadWriter.write`.
            RedisUnavailable: Redis can't be reached.
        """
        _check_content_type(request)
        async with self.opened(tenant) as writer:
            await self._copy(request, writer)
            if config is not None:
                await writer.add_config(config)
            yield writer.upload

    @asynccontextmanager
    async def opened(self, tenant: str) -> AsyncIterator["UploadWriter"]:
        """Begin an upload, and provide its writer. If the block raises, delete the upload."""
        upload = UploadId(secrets.token_hex(16))
        append = partial(self._uploads.append, upload, tenant=tenant, ttl_ms=self._ttl_ms)
        try:
            yield UploadWriter(upload, append, max_mb=self._max_mb)
        except BaseException:
            with suppress(RedisUnavailable):  # in this case, the upload expires by itself
                await self._uploads.discard(upload)
            raise

    async def _copy(self, request: Request, writer: "UploadWriter") -> None:
        size = declared_size(request)
        if size > writer.max_bytes:
            raise writer.too_large()
        decoder = Decoder(request.headers.get("content-encoding", ""), writer.max_bytes)
        async for chunk in request.stream():
            await writer.write(decoder.decode(chunk), announced=size)
        decoder.finish()
        await writer.finish()
        if not writer.num_bytes:
            raise invalid_value("the body is empty; send the bytes of adapter_model.safetensors")


class UploadWriter:
    """Writes the files of one upload to Redis. Holds at most two pieces in memory at once."""

    def __init__(
        self, upload: UploadId, append: Callable[..., Awaitable[None]], *, max_mb: int
    ) -> None:
        """Create a writer. `append` stores a piece, as `Uploads.append` does."""
        self.upload = upload
        self.num_bytes = 0
        """Number of bytes of the weights file so far."""
        self.max_bytes = max_mb * MIB
        """Maximum size of the weights file in bytes."""
        self._append = append
        self._max_mb = max_mb
        self._held = bytearray()
        self._num_pieces = 0

    async def write(self, data: bytes, *, announced: int = 0) -> None:
        """Append `data` to the weights file.

        `announced` is the size of the whole file in bytes; 0 if the client doesn't state it.

        Raises:
            JobFailed: the file is too large, doesn't fit into Redis' memory, or exceeds what the
                tenant may upload.
            RedisUnavailable: Redis can't be reached.
        """
        self.num_bytes += len(data)
        if self.num_bytes > self.max_bytes:
            raise self.too_large()
        self._held += data
        while len(self._held) >= PIECE_BYTES:
            await self._store(announced)

    def too_large(self) -> JobFailed:
        """Return the failure of an adapter that is larger than the limit."""
        message = f"the adapter is larger than {self._max_mb} MiB; ask the operator to raise "
        return failed(ErrorCode.REQUEST_TOO_LARGE, message + "--max-adapter-mb")

    async def finish(self) -> None:
        """Store the rest of the weights file. Raises the same errors as `write`."""
        if self._held:
            await self._store(0)

    async def add_config(self, text: str) -> None:
        """Store the text of adapter_config.json. Raises the same errors as `write`."""
        await self._append(CONFIG, text.encode(), num_left=0)

    async def _store(self, announced: int) -> None:
        piece = bytes(self._held[:PIECE_BYTES])
        del self._held[:PIECE_BYTES]
        num_stored = self._num_pieces * PIECE_BYTES + len(piece)
        await self._append(str(self._num_pieces), piece, num_left=max(0, announced - num_stored))
        self._num_pieces += 1


def _check_content_type(request: Request) -> None:
    found = request.headers.get("content-type", CONTENT_TYPES[0]).partition(";")[0].strip().lower()
    if found not in CONTENT_TYPES:
        raise invalid_value(
            f"the content type must be {' or '.join(CONTENT_TYPES)}, not {found!r}; to load an "
            "adapter from a folder, use POST /v1/load_lora_adapter"
        )
