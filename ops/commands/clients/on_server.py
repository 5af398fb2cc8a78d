"""Decorators of commands whose first parameter is a client of the server."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from ops.commands.clients.client_options import (
    AdminKeyOption,
    ChosenServer,
    UrlOption,
    chosen_server,
)

Client = TypeVar("Client")
Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def remember_options(
    context: typer.Context, url: UrlOption = None, api_key: AdminKeyOption = None
) -> None:
    """Keep the options `--url` and `--api-key` of a group of commands, for its commands."""
    context.obj = url, api_key


def on_server(make: Callable[[ChosenServer], Any], *, changes: bool = False) -> Decorator:
    """Return a decorator that gives a command a client of the chosen server.

    `make` returns the client, and replaces the first parameter by the options `--url` and
    `--api-key`. These override those of the command's group. If the command changes something
    (`changes`), it first prints which pool that is. It is refused if several servers run and none
    is named.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(
            context: typer.Context,
            url: UrlOption = None,
            api_key: AdminKeyOption = None,
            **given: Any,
        ) -> None:
            server = server_of(context, url, api_key, changes=changes)
            client = make(server)
            if changes:
                server.announce()
            command(client, **given)

        _, *own = inspect.signature(command).parameters.values()
        first, *options, _ = inspect.signature(run).parameters.values()
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature([first, *own, *options])  # type: ignore[attr-defined]
        return run

    return decorate


def server_of(
    context: typer.Context, url: str | None, api_key: str | None, *, changes: bool = False
) -> ChosenServer:
    """Return the server that a command's own options, or else those of its group, select.

    Raises:
        SettingsError: the command `changes` something, several servers run, and none is named.
    """
    group_url, group_key = context.obj or (None, None)
    return chosen_server(
        group_url if url is None else url,
        api_key or group_key,
        prefers_admin=True,
        changes=changes,
    )
