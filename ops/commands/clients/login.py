"""`lorikeet login` and `logout`: remember and forget the server that commands use."""

import sys
from typing import Annotated

import typer

from ops.commands.clients.client_options import chosen_server
from ops.local.remembered_servers import forget_login, remember_login
from ops.terminal import print_line

KEY_HELP = (
    "API key of the server. If the server needs one, the command asks for it, or reads it from "
    "standard input."
)


def login(
    url: Annotated[str, typer.Argument(metavar="URL", help="URL of the server.")],
    api_key: Annotated[
        str | None, typer.Option("--api-key", metavar="KEY", help=KEY_HELP, show_default=False)
    ] = None,
) -> None:
    """Let commands use a server and a key, until a later `login` or `up`, or until `logout`.

    Both are stored in a file that only this user can read.
    """
    from ops.server_client import UNAUTHENTICATED, ServerClient, ServerError  # imports httpx

    client = ServerClient(url, api_key)
    try:
        client.check()
    except ServerError as error:
        if error.status != UNAUTHENTICATED or api_key is not None:
            raise
        api_key = _asked_key() if sys.stdin.isatty() else sys.stdin.readline().strip()
        if not api_key:
            advice = f"an API key is needed; give one with `lorikeet login {url} < KEYFILE`"
            raise ServerError(advice, error.status) from None
        client = ServerClient(url, api_key)
        client.check()
    path = remember_login(client.url, api_key)
    with_key = "with this key" if api_key else "without a key"
    print_line(f"commands use {client.url} now, {with_key}; see {path}")


def _asked_key() -> str:
    return str(typer.prompt("API key", hide_input=True, err=True)).strip()


def logout() -> None:
    """Forget the server and the key of the last `login`."""
    url = forget_login()
    print_line(f"{url} is forgotten" if url else "no login is remembered")
    print_line(f"commands use {chosen_server(None, None).url} now")
