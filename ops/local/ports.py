"""Finds and checks TCP ports of this machine."""

import os
import socket

from shared.errors import SettingsError

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """Return a free port of the loopback interface."""
    return usable_port(LOOPBACK, 0)


def usable_port(host: str, port: int) -> int:
    """Return `port` if this process can listen on it, or a free port if `port` is 0.

    Raises:
        SettingsError: this process can't listen on the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as probe:
            chosen: int = probe.getsockname()[1]
            return chosen
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError(f"--port: can't listen on {host}:{port}: {reason}") from None
