"""HTTP connections of the chaos clients to all front ends."""

import socket
from collections.abc import Sequence
from random import Random

import httpx

CONNECT_S = 2.0
SILENCE_S = 13.0
"""Seconds without a byte after which a client gives up a stream. Front ends send a comment every
ten seconds."""
WHOLE_S = 25.0
"""Seconds after which a client repeats a request for an answer that isn't streamed."""
RECEIVE_BUFFER = 4096
"""Bytes that the kernel buffers for a client that doesn't read."""
STREAM_LIMITS = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
WHOLE_LIMITS = httpx.Timeout(WHOLE_S, connect=CONNECT_S)


class FrontEnds:
    """One HTTP client per front end."""

    def __init__(self, urls: Sequence[str], rng: Random) -> None:
        self._rng = rng
        self._clients = [_client(url) for url in urls]

    def pick(self, *, other_than: httpx.AsyncClient | None = None) -> httpx.AsyncClient:
        """Return the client of a random front end, if possible another one than `other_than`."""
        others = [client for client in self._clients if client is not other_than]
        return self._rng.choice(others or self._clients)

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients:
            await client.aclose()


def _client(url: str) -> httpx.AsyncClient:
    small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    transport = httpx.AsyncHTTPTransport(limits=limits, socket_options=small)
    return httpx.AsyncClient(
        base_url=url, transport=transport, timeout=STREAM_LIMITS, trust_env=False
    )
