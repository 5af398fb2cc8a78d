"""Options of the commands that are clients of a running server."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from shared.api_keys import parse_keys
from shared.errors import SettingsError
from shared.settings import ENV_PREFIX

DEFAULT_URL = "http://127.0.0.1:23333"
"""URL at which `lorikeet up` serves by default."""

URL_VARIABLE = f"{ENV_PREFIX}URL"
KEYS_VARIABLE = f"{ENV_PREFIX}API_KEYS"
URL_HELP = f"URL of the server. By default that in {URL_VARIABLE}, else {DEFAULT_URL}."


def url_option(help_text: str = URL_HELP, variable: str | None = URL_VARIABLE) -> Any:
    """Return the option `--url`. The environment variable `variable` may set it, too."""
    return _option("--url", "URL", help_text, variable)


def api_key_option(help_text: str, variable: str | None = KEYS_VARIABLE) -> Any:
    """Return the option `--api-key`. The environment variable `variable` may set it, too."""
    return _option("--api-key", "KEY", help_text, variable)


def _option(flag: str, metavar: str, help_text: str, variable: str | None) -> Any:
    return typer.Option(
        flag,
        metavar=metavar,
        help=help_text,
        envvar=variable,
        show_default=False,
        show_envvar=False,
    )


UrlOption = Annotated[str, url_option()]
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


def check_plot(plot: Path | None) -> None:
    """Check that matplotlib is installed if `--plot` is given.

    Raises:
        SettingsError: it isn't installed.
    """
    if plot and find_spec("matplotlib") is None:
        raise SettingsError(f"--plot {plot}: matplotlib isn't installed: pip install matplotlib")
