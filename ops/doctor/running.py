"""Finds out whether a running `lorikeet up` of this user is the planned server."""

from pathlib import Path
from urllib.parse import urlsplit

from ops.local.data_folder import LOCK_FILE
from ops.local.remembered_servers import RememberedServer, running_servers


def running_at(port: int, folder: Path) -> RememberedServer | None:
    """Return this user's running server that has the port and the data folder, or None."""
    try:
        owner = (folder / LOCK_FILE).read_text().strip()
    except (OSError, UnicodeDecodeError):  # nobody has used the folder, or it is another user's
        return None
    for server in running_servers():
        if str(server.pid) == owner and urlsplit(server.url).port == port:
            return server
    return None
