"""Reads the lines of a stream of server-sent events."""

from collections.abc import AsyncIterator

import httpx


async def sse_lines(reply: httpx.Response) -> AsyncIterator[str]:
    """Yield the complete lines of a response, without their ends.

    httpx's `aiter_lines` also splits at U+2028 and similar characters, which JSON may contain.
    """
    rest = b""
    async for piece in reply.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode()
