"""Reads the lines of a stream of server-sent events."""

from collections.abc import AsyncIterator

import httpx


async def sse_lines(reply: httpx.Response) -> AsyncIterator[str]:
    """Yield lines without their ends. Unlike `aiter_lines`, U+2028 in JSON doesn't split them."""
    rest = b""
    async for piece in reply.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode()
