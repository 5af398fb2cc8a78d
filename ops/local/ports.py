"""Finds and checks TCP ports of this machine."""

import socket

from shared.errors import SettingsError
from shared.port_owner import cannot_listen

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
        raise SettingsError(cannot_listen(host, port, error)) from None
