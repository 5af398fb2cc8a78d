"""`lorikeet status`: one screen about a server, its workers, its adapters and incidents."""

from typing import TYPE_CHECKING

from rich.console import Console

from ops.commands.clients.client_options import ChosenServer
from ops.commands.clients.on_server import on_server

if TYPE_CHECKING:
    from ops.pool_client import PoolClient


def pool_client(server: ChosenServer) -> "PoolClient":
    """Return a client that reads the state of the pool."""
    from ops.pool_client import PoolClient  # httpx takes long to import

    return PoolClient(server.url, server.api_key)


@on_server(pool_client)
def status(client: "PoolClient") -> None:
    """Show the server, its workers and adapters, and the last incidents on one screen.

    It needs a key with the scope admin, if the server demands keys.
    """
    from ops.pool_screen import status_screen

    Console().print(status_screen(client.url, client.pool()))
