"""Finds the process that listens on a TCP port of this machine."""

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MAX_COMMAND_CHARS = 100
_LISTENING = "0A"
_TABLES = Path("/proc/net/tcp"), Path("/proc/net/tcp6")


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """Return a message that says why a server can't listen on a port, and what to do."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    message = f"--port: can't listen on {host}:{port}: {reason}"
    if error.errno != errno.EADDRINUSE:
        return message
    owner = port_owner(port) or "another user's process"
    return f"{message} by {owner}; stop it, or give another --port (0 picks a free one)"


def port_owner(port: int) -> str | None:
    """Return the id and the command of the process that listens on `port`.

    Returns None if no process listens on the port, or if another user owns the process, so that
    this user can't see it. Only Linux has this information.
    """
    sockets = {f"socket:[{inode}]" for table in _TABLES for inode in _listening(table, port)}
    for folder in Path("/proc").glob("[0-9]*"):
        if sockets and sockets & set(_open_files(folder)):
            return f"process {folder.name} ({_command(folder)})"
    return None


def _listening(table: Path, port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on `port`, from a table of the kernel."""
    with suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                yield words[9]


def _open_files(folder: Path) -> Iterator[str]:
    with suppress(OSError):  # another user's process, or one that has ended
        for file in (folder / "fd").iterdir():
            with suppress(OSError):
                yield str(file.readlink())


def _command(folder: Path) -> str:
    with suppress(OSError):
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        command = " ".join(words).strip()
        is_cut = len(command) > MAX_COMMAND_CHARS
        return f"{command[:MAX_COMMAND_CHARS]}…" if is_cut else command
    return "ended"
