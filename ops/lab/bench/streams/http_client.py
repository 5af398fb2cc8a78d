"""Minimal HTTP client for streamed answers. It adds little to a measured latency."""

import asyncio
import resource
from contextlib import suppress
from dataclasses import dataclass, field

from ops.lab.bench.streams.received_stream import ReceivedStream

MAX_HEADER_BYTES = 65_536
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class HttpClient:
    """Sends requests to a path of a server on this machine. Connections are reused."""

    port: int
    api_key: str | None = None
    path: str = "/v1/completions"
    _idle: list[Connection] = field(default_factory=list)

    async def send(self, body: bytes, received: ReceivedStream) -> None:
        """Send one request, and pass the pieces of its answer to `received` until its end."""
        reader, writer = self._idle.pop() if self._idle else await self._connect()
        try:
            writer.write(self._head(body) + body)
            await _read(reader, received)
        except BaseException:
            writer.close()
            raise
        self._idle.append((reader, writer))

    async def close(self) -> None:
        """Close the idle connections."""
        idle, self._idle = self._idle, []
        for _, writer in idle:
            writer.close()
        for _, writer in idle:
            with suppress(OSError):  # the server has gone
                await writer.wait_closed()

    async def _connect(self) -> Connection:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=MAX_HEADER_BYTES)

    def _head(self, body: bytes) -> bytes:
        key = f"Authorization: Bearer {self.api_key}\r\n" if self.api_key else ""
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{key}"
        kind = "Content-Type: application/json"
        return f"{head}{kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()


async def _read(reader: asyncio.StreamReader, received: ReceivedStream) -> None:
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    received.begin(int(status_line.split()[1]), headers.get("x-lorikeet-job", ""))
    if "content-length" in headers:
        received.receive(await reader.readexactly(int(headers["content-length"])))
        return
    while size := int(await reader.readline(), 16):  # chunked; each chunk has whole events
        received.receive(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()


def allow_many_connections() -> None:
    """Raise this process's soft limit of open files to the hard limit."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS also has a lower limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
