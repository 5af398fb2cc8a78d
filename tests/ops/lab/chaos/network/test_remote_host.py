"""A process on a remote host is reachable, and its frames can be dropped and delayed."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# The program moves itself into a network namespace, so it is a process of its own.
PROGRAM = """
import asyncio, subprocess, sys, time
from ops.lab.chaos.network.own_namespace import enter_own_namespace
from ops.lab.chaos.network.relay import Rules
from ops.lab.chaos.network.remote_host import RemoteHost
from ops.lab.chaos.polling import until
from shared.errors import SettingsError

ECHO = '''
import socket, sys
connection, _ = socket.create_server((sys.argv[1], 9000)).accept()
while data := connection.recv(65536):
    connection.sendall(data)
'''

async def connected(address):
    try:
        return await asyncio.open_connection(address, 9000)
    except OSError:
        return None

async def main():
    host = RemoteHost(1)
    await host.start()
    echo = subprocess.Popen(host.command([sys.executable, "-c", ECHO, host.address]))
    try:
        reader, writer = await until(lambda: connected(host.address), "the server answers")

        async def transfer(size):
            start = time.monotonic()
            writer.write(bytes(size))
            await reader.readexactly(size)
            return time.monotonic() - start

        await transfer(300_000)
        whole = await host.apply(Rules(delay_s=0.1))
        assert (whole.dropped, whole.delayed) == (0, 0), whole
        assert whole.forwarded > 300, whole  # frames of at most 1,500 bytes in each direction
        assert await transfer(1) > 0.2
        await host.apply(Rules(delay_s=0.1, min_bytes=1000))
        assert await transfer(1) < 0.1
        assert await transfer(5000) > 0.2
        late = await host.apply(Rules(drop=0.3))
        assert late.delayed >= 2, late
        await transfer(300_000)
        lossy = await host.apply(Rules())
        assert lossy.dropped > 10, lossy
        assert await transfer(1) < 0.1
    finally:
        echo.kill()
        echo.wait()
        await host.stop()

try:
    enter_own_namespace()
except SettingsError as error:
    sys.exit(f"skip: {error}")
asyncio.run(main())
"""


def test_frames_are_forwarded_delayed_and_dropped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False
    )
    if done.stderr.startswith("skip: "):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
