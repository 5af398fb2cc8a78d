"""Options of the commands that are clients of a running server."""

from typing import Annotated, Any

import typer

from shared.api_keys import parse_keys

DEFAULT_URL = "http://127.0.0.1:23333"
"""URL at which `lorikeet up` serves by default."""

KEYS_VARIABLE = "LORIKEET_API_KEYS"
URL_OPTION = typer.Option(
    "--url",
    metavar="URL",
    help=f"URL of the server. [dim]\\[default: {DEFAULT_URL}][/dim]",
    show_default=False,
)


def api_key_option(help_text: str, *, reads_variable: bool = True) -> Any:
    """Return the option `--api-key`.

    If `reads_variable` is true, the option's default is the value of `LORIKEET_API_KEYS`.
    """
    return typer.Option(
        "--api-key",
        metavar="KEY",
        help=help_text,
        envvar=KEYS_VARIABLE if reads_variable else None,
        show_envvar=False,
    )


UrlOption = Annotated[str, URL_OPTION]
ApiKeyOption = Annotated[
    str | None,
    api_key_option(f"API key of the server. By default the first key in {KEYS_VARIABLE}."),
]


def first_secret(keys: str | None) -> str | None:
    """Return the secret of the first key in `keys`, or None if there are no keys.

    Raises:
        SettingsError: a key is malformed.
    """
    parsed = parse_keys([keys or ""])
    return parsed[0].secret if parsed else None
