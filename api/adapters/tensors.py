"""Receives an adapter inside a JSON body, as SGLang's trainers send it.

The tensors are encoded in base64. The body has a copy of them for each of SGLang's ranks. Only the
bytes of a safetensors file are accepted. SGLang itself takes Python pickles with handles to the
trainer's GPU memory. Loading such a pickle could run any code, and the handles are valid only on
the trainer's machine.
"""

import binascii
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import Request

from api.adapters.long_strings import LongStrings
from api.adapters.upload import AdapterUploads, UploadWriter
from api.http.body import Decoder, parse_json_object
from api.http.turns.body_checks import begin_check
from api.http.validation import validate
from api.schema.sglang import MAX_COPIES, LoadTensorsRequest
from shared.errors import invalid_param
from shared.protocol.ids import UploadId

FIELD = "serialized_named_tensors"
PICKLE_START = b"\x80"
"""First byte of a Python pickle."""
SAFETENSORS_HEADER = 8
"""Index of the first byte of the JSON header in a safetensors file."""
Store = Callable[[bytes], Awaitable[None]]


@asynccontextmanager
async def received_tensors(
    request: Request, uploads: AdapterUploads, tenant: str, *, max_rest: int
) -> AsyncIterator[tuple[LoadTensorsRequest, UploadId]]:
    """Receive the body of `request`. Provide its fields, and an upload with the tensors.

    The upload is deleted if the block raises. `max_rest` is the maximum number of bytes of the body
    without the tensors.

    Raises:
        JobFailed: a field is invalid, the tensors aren't a safetensors file in base64, the copies
            differ, or as in `UploadWriter.write`.
        RedisUnavailable: Redis can't be reached.
    """
    async with uploads.opened(tenant) as writer:
        body = await _received(request, writer, max_rest)
        await writer.finish()
        await writer.add_config(orjson.dumps(body.config_dict).decode())
        yield body, writer.upload


async def _received(request: Request, writer: UploadWriter, max_rest: int) -> LoadTensorsRequest:
    strings, copies = LongStrings(max_rest=max_rest), Copies(writer.write)
    max_bytes = max_rest + MAX_COPIES * writer.max_bytes * 2  # base64 needs less than the double
    decoder, num_bytes = Decoder(request.headers.get("content-encoding", ""), max_bytes), 0
    async for chunk in request.stream():
        decoded = decoder.decode(chunk)
        num_bytes += len(decoded)
        if num_bytes > max_bytes:
            raise writer.too_large()
        for part in strings.split(decoded):
            await copies.add(part, number=len(strings.names))
    decoder.finish()
    request.state.num_body_bytes = len(strings.rest)
    await begin_check(request)
    body = validate(LoadTensorsRequest, parse_json_object(bytes(strings.rest)))
    await _check_copies(body.tensors, strings.names, copies)
    return body


async def _check_copies(sent: Sequence[str], names: Sequence[str], copies: "Copies") -> None:
    """Check that all copies of the tensors in the body are equal.

    In `sent`, the names in `names` replace those copies that were long strings. They are in
    `copies` already. Shorter copies are added to `copies` first.
    """
    if set(names) - set(sent):
        raise invalid_param(FIELD, "is the only field that may have a long string")
    if not 0 < len(sent) <= MAX_COPIES:
        raise invalid_param(FIELD, f"must have 1 to {MAX_COPIES} copies of the tensors")
    for number, text in enumerate(sent, start=len(names) + 1):
        if text not in names:
            await copies.add(text.encode(), number=number)
    if len(set(copies.digests())) != 1:
        raise invalid_param(FIELD, "must have equal copies of the adapter's tensors for all ranks")


class Copies:
    """Decodes several copies of one file from base64, and stores only the first copy.

    Callers compare the copies by their `digests`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._hashes: list[Any] = []
        self._held = b""
        self._number = 0
        self._is_start = True
        """Whether the next decoded bytes are the first bytes of a copy."""

    async def add(self, part: bytes, *, number: int) -> None:
        """Add the next part of the copy `number`. Each copy has a higher number than earlier ones.

        Raises:
            JobFailed: the part isn't base64, or the copy isn't a safetensors file.
        """
        if number != self._number:
            self._check_end()
            self._number, self._is_start = number, True
            self._hashes.append(hashlib.sha256())
        text = self._held + part
        whole = len(text) - len(text) % 4
        self._held = text[whole:]
        if whole:
            await self._add(_decoded(text[:whole]))

    def digests(self) -> Sequence[str]:
        """Return a digest of each copy.

        Raises:
            JobFailed: the last copy isn't complete.
        """
        self._check_end()
        return [each.hexdigest() for each in self._hashes]

    async def _add(self, data: bytes) -> None:
        if self._is_start:
            _check_start(data)
        self._is_start = False
        self._hashes[-1].update(data)
        if len(self._hashes) == 1:
            await self._store(data)

    def _check_end(self) -> None:
        if self._held:
            raise invalid_param(FIELD, "isn't valid base64: its length isn't a multiple of 4")


def _decoded(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        reason = str(error).lower()
        raise invalid_param(FIELD, f"isn't valid base64: {reason}") from None


def _check_start(data: bytes) -> None:
    if data.startswith(PICKLE_START):
        raise invalid_param(
            FIELD,
            "has a Python pickle, which could run any code and refers to the trainer's own memory; "
            "send the bytes of safetensors.torch.save(tensors) in base64",
        )
    if data[SAFETENSORS_HEADER : SAFETENSORS_HEADER + 1] not in (b"{", b""):
        raise invalid_param(FIELD, "must be a safetensors file in base64")
