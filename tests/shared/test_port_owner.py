"""The process that listens on a port, as messages name it."""

import subprocess
import sys

from shared.port_owner import MAX_COMMAND_CHARS, port_owner

LISTEN = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
input()
"""


def test_a_long_command_is_cut_and_ends_with_an_ellipsis() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, "x" * MAX_COMMAND_CHARS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        owner = port_owner(int(process.stdout.readline()))
        process.communicate("\n")
    assert owner is not None
    assert owner.startswith(f"process {process.pid} (")
    assert owner.endswith("…)")
