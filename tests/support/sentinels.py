"""Servers with options of the tests, and a Sentinel that answers as tests tell it to."""

import asyncio
import subprocess

from ops.local.embedded_redis import find_server
from shared.die_with_parent import die_with_parent


def spawn(*words: str) -> "subprocess.Popen[bytes]":
    """Start the server program in a process that ends with this one."""
    return subprocess.Popen(
        [str(find_server()), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


class FakeSentinel:
    """Sentinel that names `master`, and requires `password` if it is set."""

    def __init__(self, master: int | None = None) -> None:
        self.master = master
        self.password: bytes | None = None
        self.is_silent = False
        self.num_asked = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "FakeSentinel":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_known = self.password is None
        while command := await _read_command(reader):
            if command[0] == b"AUTH":
                is_known = command[-1] == self.password
                writer.write(b"+OK\r\n" if is_known else b"-WRONGPASS no\r\n")
                continue
            self.num_asked += 1
            if not self.is_silent:
                writer.write(
                    self._answer() if is_known else b"-NOAUTH Authentication required.\r\n"
                )
        writer.close()

    def _answer(self) -> bytes:
        if self.master is None:
            return b"*-1\r\n"
        port = str(self.master).encode()
        return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port)


async def _read_command(reader: asyncio.StreamReader) -> list[bytes]:
    """Return the next command of a client; an empty list at the end."""
    if not (head := await reader.readline()):
        return []
    words = []
    for _ in range(int(head[1:])):
        size = int((await reader.readline())[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words
